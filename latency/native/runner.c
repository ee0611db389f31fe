// Runs on the device: measures, profiles, optimises and evaluates ONNX models, and prints what it finds as JSON lines.
//
// The sibling of runner.py for devices without Python. It needs a C library and ONNX Runtime's shared library, nothing else:
//     aarch64-linux-android29-clang -O2 -o pocketnas-runner runner.c -ldl -lm        (Android's NDK)
// It is started as `runner FOLDER LIBRARY`. FOLDER/job.txt holds one "key value" a line: mode, provider, threads, affinity,
// graph_level, and what the mode needs; "model FILE" and "input TYPE SHAPE FILE NAME" may come several times. How it measures,
// what it prints and why is told in runner.py; the event lines are the same, with the core's frequency beside each slice.
#define _GNU_SOURCE
#include <math.h>
#include <signal.h>
#include <time.h>

#include "facts.h"
#include "halves.h"
#include "ort.h"

#define MOST_MODELS 256
#define MOST_PORTS 64
#define MOST_RUNS 65536
#define SHORT_SLICE_NS 14000000LL
#define LONG_SLICE_NS 40000000LL
#define LONG_RUN_NS 1500000LL  // a network slower than this gets long slices
#define INTERRUPTED 0.01       // share of a run during which the core did something else

typedef struct {
    char type[16], shape[256], file[256], name[512];
} Input;

static struct {
    const char *folder;
    char mode[32], provider[64], affinity[512], level[32];
    int threads, slices, runs, models, inputs;
    uint64_t seed;
    double tolerance, limit_s;
    char model[MOST_MODELS][256];
    Input input[MOST_PORTS];
} job = {.provider = "cpu", .affinity = "auto", .level = "all", .threads = 1, .slices = 8, .runs = 50, .seed = 1, .tolerance = 0.02};

typedef struct {
    int index, watched, slices;
    Handle *session, *binding;
    long long estimate_ns, spent_ns;
    long long *fastest, *probes;  // one a slice; fastest is 0 where every run was interrupted
} Network;

static Handle *env;

_Noreturn void give_up(const char *format, ...) {
    char reason[8192];
    va_list rest;
    va_start(rest, format);
    vsnprintf(reason, sizeof reason, format, rest);
    va_end(rest);
    printf("{\"event\": \"error\", \"reason\": ");
    print_text(reason);
    printf("}\n");
    fflush(stdout);
    _exit(1);
}

// Ends a line of output. If nobody listens any more, nobody will clean up either.
static void end_line(void) {
    putchar('\n');
    if (!fflush(stdout)) return;
    DIR *folder = opendir(job.folder);
    for (struct dirent *entry; folder && (entry = readdir(folder));) unlinkat(dirfd(folder), entry->d_name, 0);
    rmdir(job.folder);
    _exit(1);
}

static const char *at(const char *name) {  // a path in the job's folder; good until the fourth next call
    static char paths[4][1024];
    static int turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", job.folder, name);
    return path;
}

static uint64_t draw(void) {  // xorshift64*
    static uint64_t state;
    if (!state) state = job.seed * 0x9E3779B97F4A7C15ull + 0x632BE59BD9B4E019ull;
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return state * 0x2545F4914F6CDD1Dull >> 11;
}

static long long clock_ns(clockid_t which) {
    struct timespec now;
    clock_gettime(which, &now);
    return 1000000000LL * now.tv_sec + now.tv_nsec;
}
#define NOW() clock_ns(CLOCK_MONOTONIC)

// Nanoseconds of a fixed piece of integer arithmetic (some 20 µs): depends on nothing but the core's momentary speed.
static long long probe_ns(void) {
    static volatile uint32_t seed = 1;
    uint32_t value = seed;
    long long start = NOW();
    for (int i = 0; i < 12000; i++) value = value * 1664525u + 1013904223u;
    seed = value;
    return NOW() - start;
}
static long long faster_probe_ns(void) {
    long long one = probe_ns(), other = probe_ns();
    return one < other ? one : other;
}

static void read_job(void) {
    char line[2048];
    FILE *file = fopen(at("job.txt"), "r");
    if (!file) give_up("%s cannot be read", at("job.txt"));
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        char *value = strchr(line, ' ');
        if (!value) continue;
        *value++ = 0;
        if (!strcmp(line, "mode")) snprintf(job.mode, sizeof job.mode, "%s", value);
        else if (!strcmp(line, "provider")) snprintf(job.provider, sizeof job.provider, "%s", value);
        else if (!strcmp(line, "affinity")) snprintf(job.affinity, sizeof job.affinity, "%s", value);
        else if (!strcmp(line, "graph_level")) snprintf(job.level, sizeof job.level, "%s", value);
        else if (!strcmp(line, "threads")) job.threads = atoi(value);
        else if (!strcmp(line, "slices")) job.slices = atoi(value);
        else if (!strcmp(line, "runs")) job.runs = atoi(value);
        else if (!strcmp(line, "seed")) job.seed = strtoull(value, NULL, 10);
        else if (!strcmp(line, "tolerance")) job.tolerance = atof(value);
        else if (!strcmp(line, "limit_s")) job.limit_s = atof(value);
        else if (!strcmp(line, "model") && job.models < MOST_MODELS) snprintf(job.model[job.models++], 256, "%s", value);
        else if (!strcmp(line, "input") && job.inputs < MOST_PORTS) {
            Input *input = &job.input[job.inputs++];
            if (sscanf(value, "%15s %255s %255s %511[^\n]", input->type, input->shape, input->file, input->name) != 4)
                give_up("job.txt: an input needs type, shape, file and name, got %s", value);
        } else give_up("job.txt: the runner does not know %s, or has no room for it", line);
    }
    fclose(file);
}

static Handle *session_options(void) {
    static const struct {
        const char *name;
        int value;
    } levels[] = {{"disabled", 0}, {"basic", 1}, {"extended", 2}, {"all", 99}};
    Handle *options;
    create_options(&options);
    set_threads(options, job.threads, 1);
    set_sequential(options);
    for (int i = 0; i < 4; i++)
        if (!strcmp(job.level, levels[i].name)) set_graph_level(options, levels[i].value);
    set_severity(options, 3);  // errors only; they also come back as a status
    set_entry(options, "session.force_spinning_stop", "1");
    return options;
}

// "XnnpackExecutionProvider" as "xnnpack".
static void short_name(char *to, size_t room, const char *name) {
    snprintf(to, room, "%s", name);
    char *suffix = strstr(to, "ExecutionProvider");
    if (suffix) *suffix = 0;
    for (; *to; to++) *to = (char)tolower(*to);
}

static void choose_provider(Handle *options) {
    char **names, known[1024] = "", one[128];
    int count, found = 0;
    available_providers(&names, &count);
    for (int i = 0; i < count; i++) {
        short_name(one, sizeof one, names[i]);
        found |= !strcmp(one, job.provider);
        if (strlen(known) + strlen(one) + 3 < sizeof known) strcat(strcat(known, *known ? ", " : ""), one);
    }
    if (!found) give_up("the runtime here has no provider '%s'; it has %s", job.provider, known);
    if (!strcmp(job.provider, "cpu")) return;
    if (!strcmp(job.provider, "nnapi")) {  // has an entry of its own
        Handle *(*append)(Handle *, uint32_t) =
            (Handle * (*)(Handle *, uint32_t)) dlsym(library, "OrtSessionOptionsAppendExecutionProvider_Nnapi");
        if (!append) give_up("the runtime here names the provider nnapi but has no way to choose it");
        check(append(options, 0));
        return;
    }
    snprintf(one, sizeof one, "%s", job.provider);
    for (char *c = one; *c; c++) *c = (char)toupper(*c);
    append_provider(options, one);
}

static Handle *open_session(const char *file, Handle *options) {
    Handle *session;
    choose_provider(options);
    create_session(env, at(file), options, &session);
    return session;
}

static const struct {
    const char *name;
    int type, bytes;
} kinds[] = {{"float32", FLOAT32, 4}, {"float64", FLOAT64, 8}, {"uint8", UINT8, 1}, {"int8", INT8, 1},
             {"int32", INT32, 4},     {"int64", INT64, 8},     {"bool", BOOL, 1}};
#define KINDS (int)(sizeof kinds / sizeof *kinds)

static int kind_of(int type) {
    int known = 0;
    while (known < KINDS && kinds[known].type != type) known++;
    return known;
}

static size_t elements(const int64_t *sizes, size_t count) {
    size_t total = 1;
    for (size_t i = 0; i < count; i++) total *= (size_t)sizes[i];
    return total;
}

// A seeded tensor of the type and shape that the model asks for; free dimensions are 1.
static Handle *random_input(Handle *session, size_t index) {
    int64_t sizes[16];
    const Handle *kind = input_kind(session, index);
    size_t count = shape_of(kind, sizes, 16);
    int type = element_type(kind);
    for (size_t i = 0; i < count; i++)
        if (sizes[i] < 1) sizes[i] = 1;
    Handle *value = new_tensor(sizes, count, type);
    void *data = data_of(value);
    for (size_t i = 0, total = elements(sizes, count); i < total; i++) {
        double uniform = (double)((draw() & 0xFFFFFFFF) + 1) / 4294967297.0, angle = (double)(draw() & 0xFFFF) / 65536.0;
        double normal = sqrt(-2 * log(uniform)) * cos(6.283185307179586 * angle);
        if (type == FLOAT32) ((float *)data)[i] = (float)normal;
        else if (type == FLOAT64) ((double *)data)[i] = normal;
        else if (type == UINT8 || type == INT8) ((uint8_t *)data)[i] = (uint8_t)draw();
        else if (type == INT32) ((int32_t *)data)[i] = (int32_t)(draw() & 255);
        else if (type == INT64) ((int64_t *)data)[i] = (int64_t)(draw() & 255);
        else give_up("input '%s' has element type %d, for which no values can be made up", name_of(session, 0, index), type);
    }
    return value;
}

static void open_network(Network *network, int index, Handle *options) {
    char *inputs[MOST_PORTS], *outputs[MOST_PORTS];
    Handle *values[MOST_PORTS], *found[MOST_PORTS] = {0};
    memset(network, 0, sizeof *network);
    network->index = index;
    Handle *session = network->session = open_session(job.model[index], options);
    size_t in = count_of(session, 0), out = count_of(session, 1);
    if (in > MOST_PORTS || out > MOST_PORTS) give_up("%s has more than %d inputs or outputs", job.model[index], MOST_PORTS);
    network->binding = new_binding(session);
    for (size_t i = 0; i < in; i++) inputs[i] = name_of(session, 0, i), values[i] = random_input(session, i);
    for (size_t i = 0; i < out; i++) outputs[i] = name_of(session, 1, i);
    run_once(session, inputs, values, in, outputs, out, found);
    for (size_t i = 0; i < in; i++) bind_value(network->binding, 0, inputs[i], values[i]);
    for (size_t i = 0; i < out; i++) bind_value(network->binding, 1, outputs[i], found[i]);  // from now on written in place
    struct timespec step;
    clock_getres(CLOCK_THREAD_CPUTIME_ID, &step);  // where the thread waits of itself, its own clock tells nothing
    network->watched = !strcmp(job.provider, "cpu") && job.threads == 1 && !step.tv_sec && step.tv_nsec < 1000;
    run_bound(session, network->binding);
    long long start = NOW();
    run_bound(session, network->binding);
    network->estimate_ns = NOW() - start;
}

static void take_slice(Network *network, int core) {
    static long long runs[MOST_RUNS];
    static char taken[MOST_RUNS];
    int count = 0;
    long long begin = NOW(), end = begin + (network->estimate_ns > LONG_RUN_NS ? LONG_SLICE_NS : SHORT_SLICE_NS);
    long long before = faster_probe_ns(), now = NOW(), own = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    while ((now < end || count < 2) && count < MOST_RUNS) {
        long long last = now, last_own = own, start = NOW();
        run_bound(network->session, network->binding);
        now = NOW(), own = clock_ns(CLOCK_THREAD_CPUTIME_ID);
        runs[count] = now - start;
        taken[count++] = network->watched && now - last - (own - last_own) > INTERRUPTED * (now - last) + 1000;
    }
    long long after = faster_probe_ns(), probe = before > after ? before : after, fastest = 0;
    printf("{\"event\": \"slice\", \"model\": %d, \"probe_ns\": %lld, \"ns\": [", network->index, probe);
    for (int i = 1; i < count; i++) printf(i > 1 ? ", %lld" : "%lld", runs[i]);
    printf("], \"interrupted\": [");
    for (int i = 1, several = 0; i < count; i++) {
        if (runs[i] < network->estimate_ns) network->estimate_ns = runs[i];
        if (taken[i - 1] || taken[i]) printf(several++ ? ", %d" : "%d", i - 1);
        else if (!fastest || runs[i] < fastest) fastest = runs[i];
    }
    long now_khz = core < 0 ? 0 : frequency_khz(core, "scaling_cur_freq"), cap = core < 0 ? 0 : frequency_khz(core, "scaling_max_freq");
    printf("]");
    print_number("khz", now_khz, now_khz > 0);
    print_number("cap_khz", cap, cap > 0);
    printf("}");
    end_line();
    network->fastest = realloc(network->fastest, sizeof(long long) * (network->slices + 1));
    network->probes = realloc(network->probes, sizeof(long long) * (network->slices + 1));
    if (!network->fastest || !network->probes) give_up("the device is out of memory");
    network->fastest[network->slices] = fastest;
    network->probes[network->slices++] = probe;
    network->spent_ns += NOW() - begin;
}

static int finished(const Network *network) {
    if ((double)network->spent_ns >= 1e9 * job.limit_s) return 1;
    return network->slices >= job.slices && half_difference(network->fastest, network->probes, network->slices) <= job.tolerance;
}

static void shuffle(int *order, int count) {
    for (int i = count - 1; i > 0; i--) {
        int other = (int)(draw() % (uint64_t)(i + 1)), kept = order[i];
        order[i] = order[other], order[other] = kept;
    }
}

static void measure(void) {
    static Network networks[MOST_MODELS];
    int order[MOST_MODELS], cores[MOST_CORES], count = job.models;
    int bound = pin(job.affinity, job.threads, cores);
    printf("{\"event\": \"started\", \"cores\": ");
    if (!bound) printf("null");
    for (int i = 0; i < bound; i++) printf(i ? ", %d" : "[%d", cores[i]);
    if (bound) printf("]");
    long most = bound ? frequency_khz(cores[0], "cpuinfo_max_freq") : 0;
    print_number("max_khz", most, most > 0);
    print_temperature();
    print_load();
    printf("}");
    end_line();
    for (int i = 0; i < count; i++) order[i] = i;
    shuffle(order, count);
    for (int i = 0; i < count; i++) {
        open_network(&networks[order[i]], order[i], session_options());
        printf("{\"event\": \"opened\", \"model\": %d}", order[i]);
        end_line();
    }
    while (count) {
        shuffle(order, count);
        int left = 0;
        for (int i = 0; i < count; i++) take_slice(&networks[order[i]], bound ? cores[0] : -1);
        for (int i = 0; i < count; i++)
            if (!finished(&networks[order[i]])) order[left++] = order[i];
        count = left;
    }
    printf("{\"event\": \"end\"");
    print_temperature();
    print_load();
}

static void memory(void) {
    static Network network;
    long long before = resident_bytes("VmRSS");
    open_network(&network, 0, session_options());
    long long peak = resident_bytes("VmHWM");
    printf("{\"event\": \"end\"");
    print_number("peak_bytes", peak - before, before >= 0 && peak >= 0);
}

static void profile(void) {
    static Network network;
    int cores[MOST_CORES];
    pin(job.affinity, job.threads, cores);
    Handle *options = session_options();
    enable_profiling(options, at("profile"));
    open_network(&network, 0, options);
    for (int i = 0; i < job.runs; i++) run_bound(network.session, network.binding);
    print_end_with_file("trace", end_profiling(network.session));
}

static void optimize(void) {
    Handle *options = session_options();
    save_optimized(options, at("optimized.onnx"));
    open_session(job.model[0], options);
    print_end_with_file("model", at("optimized.onnx"));
}

static Handle *given_input(const Input *input) {
    int64_t sizes[16];
    size_t count = 0;
    for (const char *part = input->shape; *part && *part != '-' && count < 16; part += strspn(part, ","))
        sizes[count++] = strtoll(part, (char **)&part, 10);
    for (int i = 0; i < KINDS; i++) {
        if (strcmp(kinds[i].name, input->type)) continue;
        Handle *value = new_tensor(sizes, count, kinds[i].type);
        size_t bytes = elements(sizes, count) * kinds[i].bytes;
        FILE *file = fopen(at(input->file), "rb");
        if (!file || fread(data_of(value), 1, bytes, file) != bytes) give_up("input '%s' has no %zu bytes", input->name, bytes);
        fclose(file);
        return value;
    }
    give_up("input '%s' has type %s, which the runner does not take", input->name, input->type);
}

static void outputs(void) {
    char *inputs[MOST_PORTS], *names[MOST_PORTS];
    Handle *values[MOST_PORTS], *found[MOST_PORTS] = {0};
    Handle *session = open_session(job.model[0], session_options());
    size_t count = count_of(session, 1);
    if (count > MOST_PORTS) give_up("%s has more than %d outputs", job.model[0], MOST_PORTS);
    for (int i = 0; i < job.inputs; i++) inputs[i] = job.input[i].name, values[i] = given_input(&job.input[i]);
    for (size_t i = 0; i < count; i++) names[i] = name_of(session, 1, i);
    run_once(session, inputs, values, job.inputs, names, count, found);
    for (size_t i = 0; i < count; i++)
        if (kind_of(element_type(value_kind(found[i]))) == KINDS) give_up("output '%s' is of a type that the runner does not print", names[i]);
    printf("{\"event\": \"end\", \"outputs\": [");
    for (size_t i = 0; i < count; i++) {
        int64_t sizes[16];
        const Handle *kind = value_kind(found[i]);
        size_t dimensions = shape_of(kind, sizes, 16);
        int known = kind_of(element_type(kind));
        printf(i ? ", {\"name\": " : "{\"name\": ");
        print_text(names[i]);
        printf(", \"dtype\": \"%s\", \"shape\": [", kinds[known].name);
        for (size_t d = 0; d < dimensions; d++) printf(d ? ", %lld" : "%lld", (long long)sizes[d]);
        printf("], \"data\": ");
        print_base64(data_of(found[i]), elements(sizes, dimensions) * kinds[known].bytes);
        printf("}");
    }
    printf("]");
}

static void describe(void) {
    struct utsname system;
    char governor[64], **names, text[512];
    int count, cores = (int)sysconf(_SC_NPROCESSORS_CONF);
    long most = 0;
    uname(&system);
    printf("{\"event\": \"end\", \"machine\": ");
    print_text(system.machine);
    print_cpu();
    for (int core = 0; core < cores; core++) {
        long khz = frequency_khz(core, "cpuinfo_max_freq");
        if (khz > most) most = khz;
    }
    print_number("cores", cores, cores > 0);
    printf(", \"governor\": ");
    if (read_line(governor, sizeof governor, "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")) print_text(governor);
    else printf("null");
    print_number("max_frequency_khz", most, most > 0);
    print_number("memory_bytes", (long long)sysconf(_SC_PAGESIZE) * sysconf(_SC_PHYS_PAGES), 1);
    snprintf(text, sizeof text, "%s %s", system.sysname, system.release);
    printf(", \"system\": ");
    print_text(text);
    printf(", \"runtime\": ");
    print_text(base->version());
    printf(", \"providers\": [");
    available_providers(&names, &count);
    for (int i = 0; i < count; i++) {
        if (i) printf(", ");
        print_text(names[i]);
    }
    printf("]");
}

int main(int count, char **arguments) {
    static const struct {
        const char *name;
        void (*work)(void);
    } modes[] = {{"describe", describe}, {"measure", measure}, {"memory", memory},
                 {"profile", profile},   {"optimize", optimize}, {"outputs", outputs}};
    if (count != 3) give_up("the runner must be started as: runner FOLDER LIBRARY");
    signal(SIGPIPE, SIG_IGN);
    setenv("ORT_DISABLE_TELEMETRY", "1", 1);
    job.folder = arguments[1];
    read_job();
    load_runtime(arguments[2]);
    create_env(3, &env);
    if (job.models == 0 && strcmp(job.mode, "describe")) give_up("job.txt names no model");
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        if (strcmp(job.mode, modes[i].name)) continue;
        modes[i].work();
        printf("}");
        end_line();
        _exit(0);  // the sessions need no orderly end
    }
    give_up("the runner does not know the mode '%s'", job.mode);
}
