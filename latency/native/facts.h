// What the device tells of itself: small system files, cores and their frequencies, temperature; and JSON on stdout.
#ifndef POCKETNAS_FACTS_H
#define POCKETNAS_FACTS_H

#include <ctype.h>
#include <dirent.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#define MOST_CORES 256

_Noreturn void give_up(const char *format, ...);

// The first line of a small file without its end; 0 where there is none or it may not be read.
static int read_line(char *text, size_t room, const char *format, ...) {
    char path[512];
    va_list rest;
    va_start(rest, format);
    vsnprintf(path, sizeof path, format, rest);
    va_end(rest);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    char *found = fgets(text, (int)room, file);
    fclose(file);
    if (!found) return 0;
    text[strcspn(text, "\n")] = 0;
    return 1;
}

// A number that the system keeps for a core, such as cpuinfo_max_freq in kHz; 0 where there is none.
static long frequency_khz(int core, const char *which) {
    char text[64];
    return read_line(text, sizeof text, "/sys/devices/system/cpu/cpu%d/cpufreq/%s", core, which) ? atol(text) : 0;
}

// The hottest of the thermal zones in degrees Celsius; below -273 where none may be read.
static double hottest_c(void) {
    double hottest = -1000;
    for (int zone = 0; zone < 128; zone++) {
        char text[64];
        if (!read_line(text, sizeof text, "/sys/class/thermal/thermal_zone%d/temp", zone)) continue;
        double value = atof(text) / 1000;
        if (value > hottest && value < 200) hottest = value;  // what is not connected reads as absurdly hot
    }
    return hottest;
}

// Bytes of a line like "VmHWM:   123 kB" of this process's status; -1 where unknown.
static long long resident_bytes(const char *field) {
    char line[256];
    long long found = -1;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, field, strlen(field)) && line[strlen(field)] == ':') found = 1024 * atoll(line + strlen(field) + 1);
    if (file) fclose(file);
    return found;
}

static void print_text(const char *text) {
    putchar('"');
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c == '"' || *c == '\\') printf("\\%c", *c);
        else if (isspace(*c)) putchar(' ');
        else if (*c < 32) printf("\\u%04x", *c);
        else putchar(*c);
    }
    putchar('"');
}

static void print_number(const char *key, long long value, int known) {
    printf(", \"%s\": ", key);
    if (known) printf("%lld", value);
    else printf("null");
}

static void print_load(void) {
    char text[128];
    if (read_line(text, sizeof text, "/proc/loadavg")) printf(", \"load\": %g", atof(text));
    else printf(", \"load\": null");
}

static void print_temperature(void) {
    double hottest = hottest_c();
    if (hottest > -273) printf(", \"temperature_c\": %.1f", hottest);
    else printf(", \"temperature_c\": null");
}

static void print_base64(const void *data, size_t size) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *bytes = data;
    putchar('"');
    for (size_t i = 0; i < size; i += 3) {
        unsigned group = bytes[i] << 16 | (i + 1 < size ? bytes[i + 1] << 8 : 0) | (i + 2 < size ? bytes[i + 2] : 0);
        putchar(digits[group >> 18]);
        putchar(digits[group >> 12 & 63]);
        putchar(i + 1 < size ? digits[group >> 6 & 63] : '=');
        putchar(i + 2 < size ? digits[group & 63] : '=');
    }
    putchar('"');
}

// The last event, with a file's content under a key.
static void print_end_with_file(const char *key, const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) give_up("%s cannot be read", path);
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    char *data = malloc(size + 1);
    if (!data || fread(data, 1, size, file) != (size_t)size) give_up("%s cannot be read", path);
    fclose(file);
    printf("{\"event\": \"end\", \"%s\": ", key);
    print_base64(data, size);
    free(data);
}

// The processor as /proc/cpuinfo names it; of ARM the kinds of cores; an emulated one is called so.
static void print_cpu(void) {
    char line[4096], parts[256] = "", implementer[32] = "?", model[256] = "", flags[4096] = "";
    int foreign = 0;
    struct utsname system;
    uname(&system);
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && fgets(line, sizeof line, file)) {
        char *value = strchr(line, ':');
        if (!value) continue;
        for (value++; *value == ' '; value++) {}
        value[strcspn(value, "\n")] = 0;
        if (!strncmp(line, "vendor_id", 9)) foreign = 1;
        else if (!strncmp(line, "model name", 10)) snprintf(model, sizeof model, "%.255s", value);
        else if (!strncmp(line, "CPU implementer", 15)) snprintf(implementer, sizeof implementer, "%.31s", value);
        else if (!strncmp(line, "CPU part", 8) && !strstr(parts, value) && strlen(parts) + strlen(value) + 2 < sizeof parts)
            strcat(strcat(parts, " "), value);
        else if (!*flags && (!strncmp(line, "flags", 5) || !strncmp(line, "Features", 8))) snprintf(flags, sizeof flags, "%s", value);
    }
    if (file) fclose(file);
    char cpu[1024];
#if defined(__aarch64__)
    // qemu shows the host's processor, newer ones an ARM of the implementer 0
    if (foreign || (*parts && !strtol(implementer, NULL, 16))) snprintf(cpu, sizeof cpu, "emulated %s", system.machine), *flags = 0;
    else
#else
    (void)foreign;
#endif
    if (*parts) snprintf(cpu, sizeof cpu, "%s (implementer %s, part%s)", *model ? model : system.machine, implementer, parts);
    else snprintf(cpu, sizeof cpu, "%s", *model ? model : system.machine);
    printf(", \"cpu\": ");
    print_text(cpu);
    printf(", \"flags\": [");
    int first = 1;
    for (char *flag = strtok(flags, " "); flag; flag = strtok(NULL, " "), first = 0) {
        if (!first) printf(", ");
        print_text(flag);
    }
    printf("]");
}

// Binds this process to cores: "none", "auto" (the fastest, of equal ones the last) or their numbers. Returns how many.
static int pin(const char *affinity, int threads, int *cores) {
    cpu_set_t allowed, chosen;
    int count = 0;
    CPU_ZERO(&allowed);
    CPU_ZERO(&chosen);
    if (!strcmp(affinity, "none")) return 0;
    if (strcmp(affinity, "auto")) {
        for (const char *part = affinity; *part && count < MOST_CORES; part += strspn(part, ","))
            cores[count++] = (int)strtol(part, (char **)&part, 10);
    } else {
        if (sched_getaffinity(0, sizeof allowed, &allowed)) return 0;
        for (; count < threads; count++) {
            int best = -1;
            for (int core = 0; core < MOST_CORES; core++) {
                if (!CPU_ISSET(core, &allowed)) continue;
                if (best < 0 || frequency_khz(core, "cpuinfo_max_freq") >= frequency_khz(best, "cpuinfo_max_freq")) best = core;
            }
            if (best < 0) break;
            CPU_CLR(best, &allowed);
            cores[count] = best;
        }
    }
    for (int i = 0; i < count; i++)
        if (cores[i] < CPU_SETSIZE) CPU_SET(cores[i], &chosen);
    if (sched_setaffinity(0, sizeof chosen, &chosen)) give_up("cannot bind to the cores [%s]: there are no such cores", affinity);
    return count;
}

#endif
