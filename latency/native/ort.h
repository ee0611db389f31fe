// The part of ONNX Runtime's C interface that the runner calls, found at run time: no header or library of it is needed to compile.
//
// OrtApi is a table of function pointers to which new versions only append, so a function's place in it never changes
// (onnxruntime_c_api.h, "the order of the functions must not change"). Each call below names its place in the table.
#ifndef POCKETNAS_ORT_H
#define POCKETNAS_ORT_H

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>

#define OLDEST_API 16u  // of ONNX Runtime 1.16; newer libraries still give it

enum { FLOAT32 = 1, UINT8 = 2, INT8 = 3, INT32 = 6, INT64 = 7, BOOL = 9, FLOAT64 = 11 };  // ONNXTensorElementDataType

typedef struct Handle Handle;  // any of the runtime's opaque objects
typedef struct {
    const void *const *(*table)(uint32_t version);
    const char *(*version)(void);
} Base;

static const Base *base;
static const void *const *api;
static void *library;

_Noreturn void give_up(const char *format, ...);

// The function at a place in the table, as the type of its call: status (*)(arguments).
#define CALL(place, ...) ((Handle * (*)(__VA_ARGS__)) api[place])

// Ends the job with the runtime's own reason if a call failed.
static void check(Handle *status) {
    if (status) give_up("%s", ((const char *(*)(const Handle *))api[2])(status));
}

static void create_env(int severity, Handle **out) { check(CALL(3, int, const char *, Handle **)(severity, "pocketnas", out)); }
static void create_session(Handle *env, const char *path, Handle *options, Handle **out) {
    check(CALL(7, Handle *, const char *, Handle *, Handle **)(env, path, options, out));
}
static void create_options(Handle **out) { check(CALL(10, Handle **)(out)); }
static void save_optimized(Handle *options, const char *path) { check(CALL(11, Handle *, const char *)(options, path)); }
static void set_sequential(Handle *options) { check(CALL(13, Handle *, int)(options, 0)); }
static void enable_profiling(Handle *options, const char *prefix) { check(CALL(14, Handle *, const char *)(options, prefix)); }
static void set_severity(Handle *options, int level) { check(CALL(22, Handle *, int)(options, level)); }
static void set_graph_level(Handle *options, int level) { check(CALL(23, Handle *, int)(options, level)); }
static void set_threads(Handle *options, int inside, int between) {
    check(CALL(24, Handle *, int)(options, inside));
    check(CALL(25, Handle *, int)(options, between));
}
static void set_entry(Handle *options, const char *key, const char *value) {
    check(CALL(130, Handle *, const char *, const char *)(options, key, value));
}
static void available_providers(char ***names, int *count) { check(CALL(125, char ***, int *)(names, count)); }
static void append_provider(Handle *options, const char *name) {
    check(CALL(216, Handle *, const char *, const char *const *, const char *const *, size_t)(options, name, NULL, NULL, 0));
}

static size_t count_of(Handle *session, int outputs) {
    size_t count;
    check(CALL(outputs ? 31 : 30, Handle *, size_t *)(session, &count));
    return count;
}
static Handle *allocator(void) {
    Handle *found;
    check(CALL(78, Handle **)(&found));
    return found;
}
static char *name_of(Handle *session, int outputs, size_t index) {
    char *name;
    check(CALL(outputs ? 37 : 36, Handle *, size_t, Handle *, char **)(session, index, allocator(), &name));
    return name;
}

// Type and shape behind the description of an input, or behind a value.
static const Handle *input_kind(Handle *session, size_t index) {
    Handle *type;
    const Handle *kind;
    check(CALL(33, Handle *, size_t, Handle **)(session, index, &type));
    check(CALL(55, Handle *, const Handle **)(type, &kind));
    return kind;
}
static const Handle *value_kind(const Handle *value) {
    Handle *kind;
    check(CALL(65, const Handle *, Handle **)(value, &kind));
    return kind;
}
static int element_type(const Handle *kind) {
    int type;
    check(CALL(60, const Handle *, int *)(kind, &type));
    return type;
}
static size_t shape_of(const Handle *kind, int64_t *sizes, size_t room) {
    size_t count;
    check(CALL(61, const Handle *, size_t *)(kind, &count));
    if (count > room) give_up("a tensor of %zu dimensions is more than the %zu that the runner takes", count, room);
    check(CALL(62, const Handle *, int64_t *, size_t)(kind, sizes, count));
    return count;
}

static Handle *new_tensor(const int64_t *sizes, size_t count, int type) {
    Handle *value;
    check(CALL(48, Handle *, const int64_t *, size_t, int, Handle **)(allocator(), sizes, count, type, &value));
    return value;
}
static void *data_of(Handle *value) {
    void *data;
    check(CALL(51, Handle *, void **)(value, &data));
    return data;
}
static void run_once(Handle *session, char **inputs, Handle **values, size_t in, char **outputs, size_t out, Handle **found) {
    check(CALL(9, Handle *, const Handle *, char **, Handle **, size_t, char **, size_t, Handle **)(
        session, NULL, inputs, values, in, outputs, out, found));
}
static Handle *new_binding(Handle *session) {
    Handle *binding;
    check(CALL(134, Handle *, Handle **)(session, &binding));
    return binding;
}
static void bind_value(Handle *binding, int output, const char *name, Handle *value) {
    check(CALL(output ? 137 : 136, Handle *, const char *, Handle *)(binding, name, value));
}
static inline void run_bound(Handle *session, Handle *binding) {
    check(CALL(133, Handle *, const Handle *, const Handle *)(session, NULL, binding));
}
static char *end_profiling(Handle *session) {
    char *path;
    check(CALL(110, Handle *, Handle *, char **)(session, allocator(), &path));
    return path;
}

// Opens the runtime's shared library.
static void load_runtime(const char *path) {
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) give_up("the runtime %s cannot be loaded: %s", path, dlerror());
    const Base *(*get)(void) = (const Base *(*)(void))dlsym(library, "OrtGetApiBase");
    if (!get) give_up("%s is not ONNX Runtime: it has no OrtGetApiBase", path);
    base = get();
    api = base->table(OLDEST_API);
    if (!api) give_up("ONNX Runtime %s is too old: 1.%u or newer is needed", base->version(), OLDEST_API);
}

#endif
