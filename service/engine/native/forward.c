/* The forward pass of a Deep Interest Network (Zhou et al., KDD 2018, arXiv 1706.06978), from raw ids to probabilities.
 *
 * A request is one history and C candidates. A network has P pairs of (history sequence, target), here ids and tags, each
 * with its embedding tables and an attention unit. For one candidate and one pair, with q the target's embedding (D,) and
 * k[l] the embeddings of the history (T, D), the textbook says
 *
 *     score[l] = MLP([q, k[l], q - k[l], q * k[l]])        weight = softmax(score)        pooled = sum_l weight[l] k[l]
 *
 * The first layer of that MLP is linear in q, in k and in q * k, so with its kernel cut in four, W = [Wq; Wk; Wd; Wp],
 *
 *     [q, k, q - k, q * k] W + b = k (Wk - Wd + diag(q) Wp) + q (Wq + Wd) + b = k matrix(q) + offset(q)
 *
 * `matrix` (D, H) and `offset` (H,) are made once per candidate; nothing of size (T, 4D) is ever built, and the multiply
 * count of the first layer falls fourfold. From there everything is one operation, `dense`: a few rows times a matrix,
 * held in registers. A chunk of history rows goes through all layers before the next one starts, so that what lies
 * between two layers never leaves the first-level cache.
 *
 * What repeats is computed once: a target or history entry that has the same row of the table as another of its request
 * gets the same score, so equal targets share a pooled vector and equal history entries share a score, weighed by their count.
 *
 * The head is an MLP over [pooled, target] of every pair, or [pooled, target, pooled * target] if the network says so. To
 * what it answers comes the bias of the first pair's target, if there is one; then a sigmoid.
 *
 * How this file is read: types and hashing come first. Then the arithmetic, which the compiler reads several times, once
 * for each instruction set (the file includes itself, with LANES set). The Python side is last: it checks every array
 * before the interpreter's lock is released, so that the arithmetic can trust its sizes.
 *
 * Letters: C candidates, T history length, D embedding dimension, H units of a layer. `width` is a number of units rounded
 * up to a multiple of PAD; the floats beyond the units are zero in every kernel and bias.
 */

#ifndef LANES /* ------------------------------------------------------------------------------ types, read once */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the hash reads its text as little-endian words"
#endif

#define PAD 16     /* floats: the longest vector of any instruction set */
#define ALIGN 64   /* bytes, of every buffer made here */
#define MOST_ROWS 8 /* of any instruction set's tile */

/* Under the address sanitizer, what lies between two buffers of one allocation is out of bounds too */
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define FENCE ALIGN
#define fence(at, bytes) ASAN_POISON_MEMORY_REGION(at, bytes)
#else
#define FENCE 0
#define fence(at, bytes) (void)(bytes)
#endif

enum activation { LINEAR, RELU, SIGMOID, PRELU, DICE };

/* y = act(x kernel + bias); kernel (inputs, width), the other arrays (width,) */
typedef struct {
    int inputs, units, width;
    enum activation activation;
    float *kernel, *bias;
    float *alpha;         /* PReLU and Dice: slope where x is negative, or where p is 0 */
    float *scale, *shift; /* Dice: p = sigmoid(scale x + shift) */
} Layer;

/* One (history, target) pair; `depth` 0 means mean pooling */
typedef struct {
    int dimension, stride;         /* D, and D rounded up to PAD: floats from one gathered embedding to the next */
    uint64_t rows[2];              /* of the history's table and the target's */
    const float *tables[2];        /* (rows, D), in memory that Python shares with us */
    uint64_t buckets[2];           /* that values fall into; as many as rows where there is no map */
    int32_t *map;                  /* (buckets,) the row of each, in both tables; NULL: that of its number */
    bool softmax;
    int depth;                     /* layers of the attention unit, the last with one unit */
    float *key, *product;          /* Wk - Wd and Wp, (D, width of the first layer) */
    Layer query;                   /* Wq + Wd with the first layer's bias; linear */
    Layer *layers;                 /* (depth,); of the first only the activation is used */
} Pair;

/* The values of one sequence: int64, or text */
typedef struct {
    Py_ssize_t count;
    const int64_t *numbers;
    const char **texts;            /* (count,), when there are no numbers */
    Py_ssize_t *lengths;
    PyObject **owners;             /* whose texts they are */
} Values;

/* One request: P histories, then P sequences of targets, the latter all of `candidates` values */
typedef struct {
    Values *values;
    Py_ssize_t candidates;
} Request;

/* Where the answer goes: probability (N,); weights (N, T) of each pair with its own T, or none */
typedef struct {
    float *probability;
    float **attention;
    Py_ssize_t *longest;
} Answer;

/* Memory in a list; what is kept starts ALIGN bytes on */
typedef struct Kept {
    struct Kept *next;
} Kept;

typedef struct Model Model;
struct Model {
    PyObject_HEAD
    const char *level;
    Kept *kept;                    /* all memory of its own */
    int pairs, depth;              /* P, layers of the head */
    int parts;                     /* what the head reads of a pair, D floats each: 2, or with the product 3 */
    Pair *pair;
    Layer *head;
    const float *bias;             /* (rows of the first target's table,), in Python's memory too, or NULL */
    Py_buffer *shared;             /* (2 P + 1,) the tables and the bias */
    int shares;
    int (*forward)(const Model *, const Request *, Py_ssize_t, const Answer *); /* 0, or -1: out of memory */
};

/* What one call works with. A history entry or target counts once here, however often it occurs in its request. */
typedef struct {
    int32_t *seen;        /* (mask + 1,) */
    size_t mask;
    int32_t *place[2];    /* (T,), (C,): which of the distinct entries, which of the distinct targets */
    uint64_t *row;        /* (T or C,) of each distinct one */
    int32_t *first;       /* (T or C,) where each distinct one appears first */
    float *times;         /* (T,) how often each distinct entry occurs; zero up to a multiple of PAD */
    float *keys;          /* (T, stride) their embeddings */
    float *weight;        /* (T,) their attention */
    float *share;         /* (T,) attention times how often */
    float *queries;       /* (MOST_ROWS, stride) embeddings of some distinct targets */
    float *offsets;       /* (MOST_ROWS, width of the first layer) */
    float *matrix;        /* (D, width of the first layer) */
    float *rows[2];       /* (MOST_ROWS, widest layer) between two layers */
    float *hidden;        /* (T, widest layer) before the attention's last layer */
    float *pooled;        /* (C, stride) of each distinct target */
    float *input;         /* (C, padded inputs of the head) */
    float *bias;          /* (C,) */
} Scratch;

static int padded(int units) { return (units + PAD - 1) / PAD * PAD; }
static int larger(int a, int b) { return a > b ? a : b; }

/* Cut `bytes` off the memory at `base`, or only count them while there is no memory yet */
static void *cut(char *base, size_t *used, size_t bytes) {
    size_t whole = (bytes + ALIGN - 1) / ALIGN * ALIGN + FENCE;
    char *at = base ? base + *used : NULL;
    if (at) fence(at + bytes, whole - bytes);
    *used += whole;
    return at;
}

/* Lay scratch out for histories of up to T entries and requests of up to C candidates; returns the bytes that takes */
static size_t lay_out(Scratch *s, const Model *m, size_t T, size_t C, char *base) {
    size_t used = 0, stride = 0, first = 0, matrix = 0, widest = PAD, most = T > C ? T : C, slots = 16;
    for (int p = 0; p < m->pairs; p++) {
        const Pair *pair = &m->pair[p];
        stride = (size_t)larger((int)stride, pair->stride);
        for (int i = 0; i < pair->depth; i++) widest = (size_t)larger((int)widest, pair->layers[i].width);
        if (!pair->depth) continue;
        size_t width = (size_t)pair->query.width, needed = (size_t)pair->dimension * width;
        first = width > first ? width : first;
        matrix = needed > matrix ? needed : matrix;
    }
    for (int i = 0; i < m->depth; i++) widest = (size_t)larger((int)widest, m->head[i].width);
    while (slots < 2 * most) slots *= 2;
    s->mask = slots - 1;
    s->seen = cut(base, &used, slots * sizeof *s->seen);
    s->place[0] = cut(base, &used, T * sizeof *s->place[0]);
    s->place[1] = cut(base, &used, C * sizeof *s->place[1]);
    s->row = cut(base, &used, most * sizeof *s->row);
    s->first = cut(base, &used, most * sizeof *s->first);
    s->times = cut(base, &used, (T + PAD) * sizeof(float));
    s->weight = cut(base, &used, (T + PAD) * sizeof(float));
    s->share = cut(base, &used, (T + PAD) * sizeof(float));
    s->keys = cut(base, &used, T * stride * sizeof(float));
    s->queries = cut(base, &used, MOST_ROWS * stride * sizeof(float));
    s->offsets = cut(base, &used, MOST_ROWS * first * sizeof(float));
    s->matrix = cut(base, &used, matrix * sizeof(float));
    for (int i = 0; i < 2; i++) s->rows[i] = cut(base, &used, MOST_ROWS * widest * sizeof(float));
    s->hidden = cut(base, &used, T * widest * sizeof(float));
    s->pooled = cut(base, &used, C * stride * sizeof(float));
    s->input = cut(base, &used, C * (size_t)padded(m->head[0].inputs) * sizeof(float));
    s->bias = cut(base, &used, C * sizeof(float));
    return used;
}

/* ------------------------------------------------------------------------------------------------------- hashing
 * FarmHash Fingerprint64 (Google, farmhashna::Hash64), which TensorFlow's to_hash_bucket_fast uses. */

static const uint64_t K0 = 0xc3a5c85c97cb3127u, K1 = 0xb492b66fbe98f273u, K2 = 0x9ae16a3b2f90404fu;

static inline uint64_t word(const char *at) { uint64_t x; memcpy(&x, at, 8); return x; }
static inline uint64_t half(const char *at) { uint32_t x; memcpy(&x, at, 4); return x; }
static inline uint64_t rotate(uint64_t x, int by) { return x >> by | x << (64 - by); }
static inline uint64_t shift_mix(uint64_t x) { return x ^ x >> 47; }

static inline uint64_t mix(uint64_t a, uint64_t b, uint64_t by) {
    uint64_t c = shift_mix((a ^ b) * by);
    return shift_mix((b ^ c) * by) * by;
}

typedef struct { uint64_t a, b; } Two;

/* Fold 32 bytes into two words */
static inline Two fold32(const char *s, uint64_t a, uint64_t b) {
    a += word(s);
    b = rotate(b + a + word(s + 24), 21);
    uint64_t start = a;
    a += word(s + 8) + word(s + 16);
    return (Two){a + word(s + 24), b + rotate(a, 44) + start};
}

static uint64_t hash_long(const char *s, size_t length) {
    uint64_t x = 81, y = 81 * K1 + 113, z = shift_mix(y * K2 + 113) * K2;
    Two v = {0, 0}, w = {0, 0};
    const char *last = s + length - 64; /* the final 64 bytes, which may overlap the block before */
    size_t rest = (length - 1) & 63;
    x = x * K2 + word(s);
    for (size_t blocks = (length - 1) / 64; blocks; blocks--, s += 64) {
        x = rotate(x + y + v.a + word(s + 8), 37) * K1 ^ w.b;
        y = rotate(y + v.b + word(s + 48), 42) * K1 + v.a + word(s + 40);
        z = rotate(z + w.a, 33) * K1;
        v = fold32(s, v.b * K1, x + w.a);
        w = fold32(s + 32, z + w.b, y + word(s + 16));
        uint64_t swap = z; z = x; x = swap;
    }
    uint64_t by = K1 + ((z & 0xff) << 1);
    w.a += rest;
    v.a += w.a;
    w.a += v.a;
    x = rotate(x + y + v.a + word(last + 8), 37) * by ^ w.b * 9;
    y = rotate(y + v.b + word(last + 48), 42) * by + v.a * 9 + word(last + 40);
    z = rotate(z + w.a, 33) * by;
    v = fold32(last, v.b * by, x + w.a);
    w = fold32(last + 32, z + w.b, y + word(last + 16));
    return mix(mix(v.a, w.a, by) + shift_mix(y) * K0 + x, mix(v.b, w.b, by) + z, by);
}

static uint64_t hash(const char *s, size_t length) {
    const char *end = s + length;
    uint64_t by = K2 + length * 2;
    if (length > 64) return hash_long(s, length);
    if (length > 16) {
        uint64_t a = word(s) * (length > 32 ? K2 : K1), b = word(s + 8), c = word(end - 8) * by, d = word(end - 16) * K2;
        uint64_t y = rotate(a + b, 43) + rotate(c, 30) + d, z = a + rotate(b + K2, 18) + c;
        if (length <= 32) return mix(y, z, by);
        z = mix(y, z, by);
        uint64_t e = word(s + 16) * by, f = word(s + 24);
        uint64_t g = (y + word(end - 32)) * by, h = (z + word(end - 24)) * by;
        return mix(rotate(e + f, 43) + rotate(g, 30) + h, e + rotate(f + a, 18) + g, by);
    }
    if (length >= 8) {
        uint64_t a = word(s) + K2, b = word(end - 8);
        return mix(rotate(b, 37) * by + a, (rotate(a, 25) + b) * by, by);
    }
    if (length >= 4) return mix(length + (half(s) << 3), half(end - 4), by);
    if (length > 0) {
        uint64_t y = (uint8_t)s[0] + ((uint64_t)(uint8_t)s[length / 2] << 8);
        uint64_t z = length + ((uint64_t)(uint8_t)end[-1] << 2);
        return shift_mix(y * K2 ^ z * K0) * K2;
    }
    return K2;
}

/* The hash of a number is that of its decimal text */
static uint64_t hash_number(int64_t number) {
    char text[20], *at = text + sizeof text;
    uint64_t left = number < 0 ? -(uint64_t)number : (uint64_t)number;
    do *--at = (char)('0' + left % 10); while (left /= 10);
    if (number < 0) *--at = '-';
    return hash(at, (size_t)(text + sizeof text - at));
}

/* Number the distinct rows of a sequence in order of appearance: place (count,) of each value; of each place its row, where
 * it appears first and, where wanted, how often. Returns how many places there are. */
static int find_places(const Values *values, const int32_t *map, uint64_t buckets, Scratch *s, int32_t *place,
                       float *times) {
    int places = 0;
    memset(s->seen, 0xff, (s->mask + 1) * sizeof *s->seen);
    for (Py_ssize_t i = 0; i < values->count; i++) {
        uint64_t row = (values->numbers ? hash_number(values->numbers[i])
                                        : hash(values->texts[i], (size_t)values->lengths[i])) % buckets;
        if (map) row = (uint64_t)map[row];
        size_t slot = (row * K1 >> 32) & s->mask;
        while (s->seen[slot] >= 0 && s->row[s->seen[slot]] != row) slot = (slot + 1) & s->mask;
        if (s->seen[slot] < 0) {
            if (times) times[places] = 0;
            s->row[places] = row;
            s->first[places] = (int32_t)i;
            s->seen[slot] = places++;
        }
        place[i] = s->seen[slot];
        if (times) times[place[i]]++;
    }
    return places;
}

/* Copy the embeddings of `count` places out of a table: out (count, stride), zero from D on */
static void gather(const Pair *pair, int table, const uint64_t *row, int count, float *out) {
    size_t dimension = (size_t)pair->dimension, stride = (size_t)pair->stride;
    for (int i = 0; i < count; i++, out += stride) {
        memcpy(out, pair->tables[table] + row[i] * dimension, dimension * sizeof(float));
        memset(out + dimension, 0, (stride - dimension) * sizeof(float));
    }
}

/* ----------------------------------------------------------------------- the arithmetic, for each instruction set */

#define PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define UNROLL(times) PRAGMA(unroll) /* to Clang the other is a hint: it kept sums in memory, and took twice as long */
#else
#define UNROLL(times) PRAGMA(GCC unroll times)
#endif

#define JOIN2(name, level) name##_##level
#define JOIN(name, level) JOIN2(name, level)
#define OF(name) JOIN(name, LEVEL)

#if defined(__x86_64__)
#define LEVEL avx512
#define LANES 16
#define ROWS 8
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))), apply_to = function)
#define UNROLLED /* or else Clang leaves the loops inside as they are */
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#define UNROLLED _Pragma("GCC unroll 4") /* 13 % faster; the others have too few registers, and spill */
#endif
#include "forward.c"
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#undef LEVEL
#undef LANES
#undef ROWS
#undef UNROLLED
#define LEVEL avx2
#define LANES 8
#define ROWS 6
#define UNROLLED
#include "forward.c"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef LEVEL
#undef LANES
#undef ROWS
#undef UNROLLED
#endif

#define LEVEL plain /* what the compiler takes for granted: SSE2 on x86-64, NEON on arm64 */
#define LANES 4
#define ROWS 6
#define UNROLLED
#include "forward.c"

static const struct {
    const char *name;
    int (*forward)(const Model *, const Request *, Py_ssize_t, const Answer *);
} LEVELS[] = { /* fastest first */
#if defined(__x86_64__)
    {"avx512", forward_avx512},
    {"avx2", forward_avx2},
#endif
    {"plain", forward_plain},
};

static bool supported(const char *level) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (!strcmp(level, "avx2")) return avx2;
    if (!strcmp(level, "avx512"))
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#endif
    return !strcmp(level, "plain");
}

/* ------------------------------------------------------------------------------------------------- the Python side */

#define MOST (1 << 20) /* units of a layer, dimensions of an embedding, layers */

static bool is_tuple(PyObject *object, const char *what) {
    if (PyTuple_Check(object)) return true;
    PyErr_Format(PyExc_TypeError, "%s: not a tuple", what);
    return false;
}

/* `count` zeroed items of `size` bytes that live until the list is freed; NULL with an exception set */
static void *keep(Kept **list, Py_ssize_t count, size_t size) {
    Kept *made = NULL;
    if (count <= (Py_ssize_t)((PY_SSIZE_T_MAX - 2 * ALIGN) / size)) {
        size_t bytes = ((size_t)count * size + ALIGN - 1) / ALIGN * ALIGN;
        if ((made = aligned_alloc(ALIGN, ALIGN + bytes))) memset(made, 0, ALIGN + bytes);
        if (made) fence((char *)made + ALIGN + (size_t)count * size, bytes - (size_t)count * size);
    }
    if (!made) return PyErr_NoMemory();
    made->next = *list;
    *list = made;
    return (char *)made + ALIGN;
}

static void free_kept(Kept *list) {
    while (list) {
        Kept *next = list->next;
        free(list);
        list = next;
    }
}

/* Borrow an array as C-contiguous, aligned items of one of `formats`, with this many axes; false with an exception set */
static bool borrow(PyObject *array, Py_buffer *view, const char *formats, int axes, int flags, const char *what) {
    if (PyObject_GetBuffer(array, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | flags) < 0) return false;
    const char *format = view->format ? view->format : "B";
    size_t size = *formats == 'q' ? sizeof(int64_t) : sizeof(float); /* or int32_t */
    if (strlen(format) != 1 || !strchr(formats, *format) || view->itemsize != (Py_ssize_t)size)
        PyErr_Format(PyExc_TypeError, "%s: items of format %s, not one of %s", what, format, formats);
    else if (view->ndim != axes)
        PyErr_Format(PyExc_ValueError, "%s: %d axes, not %d", what, view->ndim, axes);
    else if ((uintptr_t)view->buf % size)
        PyErr_Format(PyExc_ValueError, "%s: not aligned", what);
    else
        return true;
    PyBuffer_Release(view);
    return false;
}

/* Copy an array (rows, columns), or (columns,) where rows is 0, into kept memory (rows, padded columns) */
static float *copy(Model *m, PyObject *array, int rows, int columns, const char *what) {
    Py_buffer view;
    if (!borrow(array, &view, "f", rows ? 2 : 1, 0, what)) return NULL;
    float *made = NULL;
    size_t width = (size_t)padded(columns), lines = rows ? (size_t)rows : 1; /* below 2^41 floats: see MOST */
    if (view.len / (Py_ssize_t)sizeof(float) != (Py_ssize_t)lines * columns || (rows && view.shape[0] != rows))
        PyErr_Format(PyExc_ValueError, "%s: not of shape (%d, %d)", what, rows, columns);
    else if ((made = keep(&m->kept, (Py_ssize_t)(lines * width), sizeof *made)))
        for (size_t r = 0; r < lines; r++)
            memcpy(made + r * width, (const float *)view.buf + r * (size_t)columns, (size_t)columns * sizeof(float));
    PyBuffer_Release(&view);
    return made;
}

/* Entries along one axis of an array of floats, from 1 to MOST; 0 with an exception set */
static int entries(PyObject *array, int axis, int axes, const char *what) {
    Py_buffer view;
    if (!borrow(array, &view, "f", axes, 0, what)) return 0;
    Py_ssize_t found = view.shape[axis];
    PyBuffer_Release(&view);
    if (found >= 1 && found <= MOST) return (int)found;
    PyErr_Format(PyExc_ValueError, "%s: an axis of %zd", what, found);
    return 0;
}

/* Read (kernel, bias, activation, alpha, scale, shift). The last layer is linear, of one unit, its kernel (inputs,); the
 * attention's first has none of its own: it is read as if it were there. */
static bool read_layer(Model *m, PyObject *tuple, int inputs, bool folded, bool last, Layer *layer) {
    PyObject *kernel, *bias, *alpha, *scale, *shift;
    int activation;
    if (!is_tuple(tuple, "layer") ||
        !PyArg_ParseTuple(tuple, "OOiOOO", &kernel, &bias, &activation, &alpha, &scale, &shift) ||
        !(layer->units = entries(bias, 0, 1, "bias")))
        return false;
    if (activation < LINEAR || activation > DICE)
        return PyErr_Format(PyExc_ValueError, "no activation %d", activation), false;
    if (last && (layer->units != 1 || activation != LINEAR))
        return PyErr_SetString(PyExc_ValueError, "the last layer is not linear, or not of one unit"), false;
    layer->inputs = inputs;
    layer->width = padded(layer->units);
    layer->activation = (enum activation)activation;
    if (!(layer->bias = copy(m, bias, 0, layer->units, "bias"))) return false;
    if (!folded && last && !(layer->kernel = copy(m, kernel, 0, inputs, "kernel"))) return false;
    if (!folded && !last && !(layer->kernel = copy(m, kernel, inputs, layer->units, "kernel"))) return false;
    if (activation >= PRELU && !(layer->alpha = copy(m, alpha, 0, layer->units, "alpha"))) return false;
    if (activation < DICE) return true;
    return (layer->scale = copy(m, scale, 0, layer->units, "scale")) &&
           (layer->shift = copy(m, shift, 0, layer->units, "shift"));
}

/* Read the layers of an MLP, the first one perhaps folded into others; returns them and their number */
static Layer *read_layers(Model *m, PyObject *tuple, int inputs, bool folded, int *depth) {
    if (!is_tuple(tuple, "layers")) return NULL;
    Py_ssize_t count = PyTuple_Size(tuple);
    if (count < 1 || count > MOST) return PyErr_Format(PyExc_ValueError, "%zd layers", count), NULL;
    Layer *layers = keep(&m->kept, count, sizeof *layers);
    for (Py_ssize_t i = 0; layers && i < count; inputs = layers[i++].units)
        if (!read_layer(m, PyTuple_GetItem(tuple, i), inputs, folded && i == 0, i == count - 1, &layers[i])) return NULL;
    *depth = (int)count;
    return layers;
}

/* Read (query, key, product, layers, softmax) */
static bool read_unit(Model *m, PyObject *tuple, Pair *pair) {
    PyObject *query, *key, *product, *layers;
    int softmax, D = pair->dimension;
    if (!is_tuple(tuple, "unit") || !PyArg_ParseTuple(tuple, "OOOOp", &query, &key, &product, &layers, &softmax) ||
        !(pair->layers = read_layers(m, layers, D, true, &pair->depth)))
        return false;
    pair->softmax = softmax;
    pair->query = pair->layers[0];
    pair->query.activation = LINEAR;
    int units = pair->query.units;
    return (pair->query.kernel = copy(m, query, D, units, "query")) && (pair->key = copy(m, key, D, units, "key")) &&
           (pair->product = copy(m, product, D, units, "product"));
}

/* Copy which row each bucket has, an array (buckets,) or None. Every entry is a row of both tables, and since the copy is
 * ours it stays one. */
static bool read_map(Model *m, PyObject *rows, Pair *pair) {
    Py_buffer view;
    if (rows == Py_None) return true;
    if (!borrow(rows, &view, "i", 1, 0, "rows")) return false;
    Py_ssize_t buckets = view.shape[0];
    uint64_t least = pair->rows[0] < pair->rows[1] ? pair->rows[0] : pair->rows[1];
    bool inside = buckets > 0;
    if ((pair->map = keep(&m->kept, buckets, sizeof *pair->map)))
        memcpy(pair->map, view.buf, (size_t)buckets * sizeof *pair->map);
    PyBuffer_Release(&view);
    if (!pair->map) return false;
    for (Py_ssize_t i = 0; i < buckets; i++) inside &= pair->map[i] >= 0 && (uint64_t)pair->map[i] < least;
    if (!inside) return PyErr_SetString(PyExc_ValueError, "rows: none, or one that is not in the tables"), false;
    pair->buckets[0] = pair->buckets[1] = (uint64_t)buckets;
    return true;
}

/* Read (table, target table, unit or None, rows or None) */
static bool read_pair(Model *m, PyObject *tuple, Pair *pair) {
    PyObject *tables[2], *unit, *rows;
    if (!is_tuple(tuple, "pair") || !PyArg_ParseTuple(tuple, "OOOO", &tables[0], &tables[1], &unit, &rows) ||
        !(pair->dimension = entries(tables[0], 1, 2, "table")))
        return false;
    pair->stride = padded(pair->dimension);
    for (int i = 0; i < 2; i++) {
        Py_buffer *view = &m->shared[m->shares];
        if (!borrow(tables[i], view, "f", 2, 0, "table")) return false;
        m->shares++;
        if (view->shape[1] != pair->dimension || view->shape[0] < 1)
            return PyErr_SetString(PyExc_ValueError, "table: empty, or of another dimension"), false;
        pair->tables[i] = view->buf;
        pair->rows[i] = pair->buckets[i] = (uint64_t)view->shape[0];
    }
    return read_map(m, rows, pair) && (unit == Py_None || read_unit(m, unit, pair));
}

/* Read what is added to the log-odds, one float for each row of the first target's table, or None */
static bool read_bias(Model *m, PyObject *bias) {
    if (bias == Py_None) return true;
    Py_buffer *view = &m->shared[m->shares];
    if (!borrow(bias, view, "f", 1, 0, "bias")) return false;
    m->shares++;
    if ((uint64_t)view->shape[0] != m->pair[0].rows[1])
        return PyErr_SetString(PyExc_ValueError, "bias: not one of each row"), false;
    m->bias = view->buf;
    return true;
}

static bool read_model(Model *m, PyObject *pairs, PyObject *head, PyObject *bias, const char *level) {
    for (size_t i = 0; i < sizeof LEVELS / sizeof *LEVELS && !m->forward; i++)
        if (supported(LEVELS[i].name) && (!level || !strcmp(level, LEVELS[i].name))) {
            m->forward = LEVELS[i].forward;
            m->level = LEVELS[i].name;
        }
    if (!m->forward) return PyErr_SetString(PyExc_ValueError, "no such level on this machine"), false;
    Py_ssize_t count = PyTuple_Size(pairs);
    if (count < 1 || count > MOST) return PyErr_Format(PyExc_ValueError, "%zd pairs", count), false;
    m->pairs = (int)count;
    if (!(m->pair = keep(&m->kept, count, sizeof *m->pair))) return false;
    if (!(m->shared = keep(&m->kept, 2 * count + 1, sizeof *m->shared))) return false;
    int inputs = 0;
    for (int p = 0; p < m->pairs; p++) {
        if (!read_pair(m, PyTuple_GetItem(pairs, p), &m->pair[p])) return false;
        if ((inputs += m->parts * m->pair[p].dimension) > MOST)
            return PyErr_SetString(PyExc_ValueError, "the head has too many inputs"), false;
    }
    return read_bias(m, bias) && (m->head = read_layers(m, head, inputs, false, &m->depth));
}

static PyObject *model_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    static char *names[] = {"pairs", "head", "bias", "product", "level", NULL};
    PyObject *pairs, *head, *bias;
    int product;
    const char *level = NULL;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O!O!Op|z:Model", names, &PyTuple_Type, &pairs, &PyTuple_Type,
                                     &head, &bias, &product, &level))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Model *m = (Model *)allocate(type, 0); /* zeroed */
    if (m) m->parts = product ? 3 : 2;
    if (m && !read_model(m, pairs, head, bias, level)) {
        Py_DECREF((PyObject *)m);
        return NULL;
    }
    return (PyObject *)m;
}

static void model_free(PyObject *self) {
    Model *m = (Model *)self;
    PyTypeObject *type = Py_TYPE(self);
    while (m->shares) PyBuffer_Release(&m->shared[--m->shares]);
    free_kept(m->kept);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF((PyObject *)type);
}

/* What one call borrows from Python, to be given back whatever happens */
typedef struct {
    Kept *kept;
    Py_buffer *views;
    int view_count;
    Values *values;
    Py_ssize_t value_count;
} Call;

static void give_back(Call *call) {
    for (Py_ssize_t i = 0; i < call->value_count; i++)
        for (Py_ssize_t n = 0; call->values[i].owners && n < call->values[i].count; n++)
            Py_XDECREF(call->values[i].owners[n]);
    while (call->view_count) PyBuffer_Release(&call->views[--call->view_count]);
    free_kept(call->kept);
}

/* Take the texts out of an array of bytes objects, each held until the call is over */
static bool read_texts(Call *call, PyObject **objects, Values *values) {
    Py_ssize_t count = values->count;
    if (!(values->owners = keep(&call->kept, count, sizeof *values->owners)) ||
        !(values->texts = keep(&call->kept, count, sizeof *values->texts)) ||
        !(values->lengths = keep(&call->kept, count, sizeof *values->lengths)))
        return false;
    for (Py_ssize_t i = 0; i < count; i++) {
        char *text;
        if (!objects[i] || !PyBytes_Check(objects[i]))
            return PyErr_SetString(PyExc_TypeError, "values: an object that is not bytes"), false;
        if (PyBytes_AsStringAndSize(objects[i], &text, &values->lengths[i]) < 0) return false;
        values->texts[i] = text;
        Py_INCREF(values->owners[i] = objects[i]);
    }
    return true;
}

/* Read one sequence: an array of int64, or of bytes objects */
static bool read_values(Call *call, PyObject *array, Values *values) {
    Py_buffer *view = &call->views[call->view_count];
    if (!borrow(array, view, "qlO", 1, 0, "values")) return false;
    call->view_count++;
    values->count = view->shape[0];
    if (values->count > INT32_MAX / 4) return PyErr_SetString(PyExc_ValueError, "values: too many"), false;
    if (*view->format == 'O') return read_texts(call, view->buf, values);
    values->numbers = view->buf;
    return true;
}

/* Read one request: a tuple of P histories and P sequences of targets */
static bool read_request(Call *call, const Model *m, PyObject *tuple, Request *request) {
    if (!is_tuple(tuple, "request")) return false;
    if (PyTuple_Size(tuple) != 2 * m->pairs) return PyErr_SetString(PyExc_ValueError, "request: wrong number of arrays"), false;
    request->values = &call->values[call->value_count];
    for (int i = 0; i < 2 * m->pairs; i++) {
        call->value_count++; /* before it is read: what is read halfway is given back too */
        if (!read_values(call, PyTuple_GetItem(tuple, i), &request->values[i])) return false;
    }
    request->candidates = request->values[m->pairs].count;
    for (int p = 1; p < m->pairs; p++)
        if (request->values[m->pairs + p].count != request->candidates)
            return PyErr_SetString(PyExc_ValueError, "request: targets of different lengths"), false;
    return true;
}

/* Borrow an array of `rows` rows of floats to write to */
static float *read_output(Call *call, PyObject *array, int axes, Py_ssize_t rows, Py_ssize_t least, Py_ssize_t *width) {
    Py_buffer *view = &call->views[call->view_count];
    if (!borrow(array, view, "f", axes, PyBUF_WRITABLE, "output")) return NULL;
    call->view_count++;
    *width = axes == 2 ? view->shape[1] : 1;
    if (view->shape[0] == rows && *width >= least && *width <= INT32_MAX) return view->buf;
    return PyErr_SetString(PyExc_ValueError, "output: of another size than the requests"), NULL;
}

static bool run(Call *call, const Model *m, PyObject *requests, PyObject *probability, PyObject *attention) {
    Py_ssize_t count = PyTuple_Size(requests), rows = 0, ignored;
    int pairs = m->pairs;
    Request *read = keep(&call->kept, count, sizeof *read);
    Answer answer = {0};
    if (count > INT32_MAX / 4 / pairs || !read || !(call->values = keep(&call->kept, 2 * count * pairs, sizeof *call->values)) ||
        !(call->views = keep(&call->kept, 2 * count * pairs + 1 + pairs, sizeof *call->views)))
        return PyErr_NoMemory(), false;
    for (Py_ssize_t i = 0; i < count; rows += read[i++].candidates)
        if (!read_request(call, m, PyTuple_GetItem(requests, i), &read[i])) return false;
    if (!(answer.probability = read_output(call, probability, 1, rows, 1, &ignored))) return false;
    if (attention != Py_None) {
        if (!is_tuple(attention, "attention")) return false;
        if (PyTuple_Size(attention) != pairs) return PyErr_SetString(PyExc_ValueError, "attention: one array a pair"), false;
        answer.attention = keep(&call->kept, pairs, sizeof *answer.attention);
        answer.longest = keep(&call->kept, pairs, sizeof *answer.longest);
        if (!answer.attention || !answer.longest) return false;
        for (int p = 0; p < pairs; p++) {
            Py_ssize_t least = 0;
            for (Py_ssize_t i = 0; i < count; i++) least = read[i].values[p].count > least ? read[i].values[p].count : least;
            answer.attention[p] = read_output(call, PyTuple_GetItem(attention, p), 2, rows, least, &answer.longest[p]);
            if (!answer.attention[p]) return false;
        }
    }
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = m->forward(m, read, count, &answer);
    Py_END_ALLOW_THREADS
    return failed ? (PyErr_NoMemory(), false) : true;
}

static PyObject *model_run(PyObject *self, PyObject *arguments) {
    PyObject *requests, *probability, *attention = Py_None;
    if (!PyArg_ParseTuple(arguments, "O!O|O:run", &PyTuple_Type, &requests, &probability, &attention)) return NULL;
    Call call = {0};
    bool done = run(&call, (Model *)self, requests, probability, attention);
    give_back(&call);
    if (!done) return NULL;
    Py_RETURN_NONE;
}

static PyObject *model_level(PyObject *self, void *closure) {
    (void)closure;
    return PyUnicode_FromString(((Model *)self)->level);
}

static PyObject *fingerprint(PyObject *module, PyObject *text) {
    (void)module;
    char *bytes;
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(text, &bytes, &length) < 0) return NULL;
    return PyLong_FromUnsignedLongLong(hash(bytes, (size_t)length));
}

static PyObject *levels(PyObject *module, PyObject *ignored) {
    (void)module, (void)ignored;
    PyObject *found = PyList_New(0);
    for (size_t i = 0; found && i < sizeof LEVELS / sizeof *LEVELS; i++) {
        if (!supported(LEVELS[i].name)) continue;
        PyObject *name = PyUnicode_FromString(LEVELS[i].name);
        if (!name || PyList_Append(found, name) < 0) Py_CLEAR(found);
        Py_XDECREF(name);
    }
    return found;
}

static PyMethodDef MODEL_METHODS[] = {
    {"run", model_run, METH_VARARGS,
     "run(requests, probability, attention=None): answer requests, without the interpreter's lock.\n\n"
     "Each request is a tuple of the pairs' histories, then the pairs' targets: arrays of int64 or of bytes objects.\n"
     "probability float32 (N,) and, where wanted, attention, a float32 (N, T) for each pair, are written to."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef MODEL_MEMBERS[] = {
    {"level", model_level, NULL, "the instruction set in use", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot MODEL_SLOTS[] = {
    {Py_tp_doc, "Model(pairs, head, bias, product, level=None): a network. Weights and maps are copied, tables and bias shared."},
    {Py_tp_new, model_new},
    {Py_tp_dealloc, model_free},
    {Py_tp_methods, MODEL_METHODS},
    {Py_tp_getset, MODEL_MEMBERS},
    {0, NULL},
};

static PyType_Spec MODEL_SPEC = {
    .name = "service.engine.native._forward.Model",
    .basicsize = sizeof(Model),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = MODEL_SLOTS,
};

static int module_exec(PyObject *module) {
    PyObject *type = PyType_FromSpec(&MODEL_SPEC);
    if (!type) return -1;
    int failed = PyModule_AddObjectRef(module, "Model", type);
    Py_DECREF(type);
    return failed;
}

static PyMethodDef METHODS[] = {
    {"fingerprint", fingerprint, METH_O, "fingerprint(text): FarmHash Fingerprint64 of bytes."},
    {"levels", levels, METH_NOARGS, "levels(): the instruction sets of this machine, fastest first."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot SLOTS[] = {{Py_mod_exec, module_exec}, {0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_forward",
    .m_doc = "The forward pass of a Deep Interest Network.",
    .m_methods = METHODS,
    .m_slots = SLOTS,
};

PyMODINIT_FUNC PyInit__forward(void) { return PyModuleDef_Init(&MODULE); }

#else /* ----------------------------------------------------- the arithmetic: LANES floats in a vector, LEVEL its name */

#define inlined static inline __attribute__((always_inline))
#define vec OF(vec)
#define ints OF(ints)
#define load OF(load)
#define store OF(store)
#define all OF(all)
#define choose OF(choose)
#define larger_of OF(larger_of)
#define exponential OF(exponential)
#define sigmoid OF(sigmoid)
#define evens OF(evens)
#define odds OF(odds)
#define sum_rows OF(sum_rows)
#define tile OF(tile)
#define tiles OF(tiles)
#define activate OF(activate)
#define dense OF(dense)
#define project OF(project)
#define fold OF(fold)
#define attend OF(attend)
#define normalise OF(normalise)
#define pool OF(pool)
#define feed OF(feed)
#define click OF(click)
#define forward OF(forward)

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

inlined vec load(const float *at) { return *(const vec *)at; }
inlined void store(float *at, vec x) { *(vec *)at = x; }
inlined vec all(float x) { return x - (vec){0}; }
inlined vec choose(ints mask, vec yes, vec no) { return (vec)(((ints)yes & mask) | ((ints)no & ~mask)); }

/* The larger of each lane, b where one is not a number */
inlined vec larger_of(vec a, vec b) {
#if LANES == 16
    return (vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif LANES == 8
    return (vec)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__x86_64__)
    return (vec)_mm_max_ps((__m128)a, (__m128)b);
#else
    return choose(a > b, a, b);
#endif
}

/* e^x to about one unit in the last place, 0 below -87 (Cephes expf) */
inlined vec exponential(vec x) {
    x = larger_of(all(-87.0f), x);
    x = choose(x > 88.0f, all(88.0f), x);
    vec n = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: the integer part lands in the low bits */
    ints power = ((ints)n << 23) + (127 << 23);
    n -= 12582912.0f;
    x = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec y = all(1.9875691500e-4f);
    y = y * x + 1.3981999507e-3f;
    y = y * x + 8.3334519073e-3f;
    y = y * x + 4.1665795894e-2f;
    y = y * x + 1.6666665459e-1f;
    y = y * x + 5.0000001201e-1f;
    return (y * x * x + x + 1.0f) * (vec)power;
}

inlined vec sigmoid(vec x) { return 1.0f / (1.0f + exponential(-x)); }

/* Every second lane of a and b one after the other, from the first or the second on */
#if LANES == 16
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#elif LANES == 8
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define ODD 1, 3, 5, 7, 9, 11, 13, 15
#else
#define EVEN 0, 2, 4, 6
#define ODD 1, 3, 5, 7
#endif
#if defined(__clang__)
inlined vec evens(vec a, vec b) { return __builtin_shufflevector(a, b, EVEN); }
inlined vec odds(vec a, vec b) { return __builtin_shufflevector(a, b, ODD); }
#else
inlined vec evens(vec a, vec b) { return __builtin_shuffle(a, b, (ints){EVEN}); }
inlined vec odds(vec a, vec b) { return __builtin_shuffle(a, b, (ints){ODD}); }
#endif
#undef EVEN
#undef ODD

/* Lane i of the result is the sum of the lanes of x[i] */
inlined vec sum_rows(vec x[LANES]) {
    UNROLL(4)
    for (int left = LANES / 2; left; left /= 2)
        UNROLL(8)
        for (int i = 0; i < left; i++) x[i] = evens(x[2 * i], x[2 * i + 1]) + odds(x[2 * i], x[2 * i + 1]);
    return x[0];
}

/* y (rows, columns * LANES) = max(x (rows, inputs) kernel + bias, least); rows and columns are known when this compiles,
 * and all sums stay in registers. Strides in floats. */
inlined void tile(const int rows, const int columns, int inputs, const float *x, ptrdiff_t x_stride,
                  const float *kernel, ptrdiff_t width, const float *bias, float least, float *y, ptrdiff_t y_stride) {
    vec sum[MOST_ROWS][2];
    UNROLL(8)
    for (int r = 0; r < rows; r++)
        UNROLL(2)
        for (int c = 0; c < columns; c++) sum[r][c] = load(bias + c * LANES);
    UNROLLED for (int i = 0; i < inputs; i++) {
        vec weight[2];
        UNROLL(2)
        for (int c = 0; c < columns; c++) weight[c] = load(kernel + i * width + c * LANES);
        UNROLL(8)
        for (int r = 0; r < rows; r++) {
            vec value = all(x[r * x_stride + i]);
            UNROLL(2)
            for (int c = 0; c < columns; c++) sum[r][c] += value * weight[c];
        }
    }
    UNROLL(8)
    for (int r = 0; r < rows; r++)
        UNROLL(2)
        for (int c = 0; c < columns; c++)
            store(y + r * y_stride + c * LANES, larger_of(sum[r][c], all(least)));
}

/* The same for any number of rows up to ROWS */
inlined void tiles(int rows, const int columns, int inputs, const float *x, ptrdiff_t x_stride,
                   const float *kernel, ptrdiff_t width, const float *bias, float least, float *y, ptrdiff_t y_stride) {
    switch (rows) {
#define CASE(n) case n: tile(n, columns, inputs, x, x_stride, kernel, width, bias, least, y, y_stride); break;
    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#if ROWS > 6
    CASE(7) CASE(8)
#endif
#undef CASE
    }
}

/* Apply what `tile` cannot: y (rows, width) = act(y) */
static void activate(const Layer *layer, int rows, float *y) {
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < layer->width; j += LANES) {
            float *at = y + r * layer->width + j;
            vec x = load(at);
            if (layer->activation == SIGMOID) {
                x = sigmoid(x);
            } else if (layer->activation == PRELU) {
                x = choose(x > 0.0f, x, x * load(layer->alpha + j));
            } else { /* p x + (1 - p) alpha x */
                vec alpha = load(layer->alpha + j), p = sigmoid(load(layer->scale + j) * x + load(layer->shift + j));
                x = (alpha + p * (1.0f - alpha)) * x;
            }
            store(at, x);
        }
}

/* y (rows, width) = act(x (rows, inputs) kernel + bias), rows <= ROWS */
static void dense(const Layer *layer, const float *kernel, const float *bias, int rows, const float *x,
                  ptrdiff_t x_stride, float *y) {
    ptrdiff_t width = layer->width;
    float least = layer->activation == RELU ? 0.0f : -INFINITY;
    int j = 0;
    for (; j + 2 * LANES <= width; j += 2 * LANES)
        tiles(rows, 2, layer->inputs, x, x_stride, kernel + j, width, bias + j, least, y + j, width);
    if (j < width) tiles(rows, 1, layer->inputs, x, x_stride, kernel + j, width, bias + j, least, y + j, width);
    if (layer->activation > RELU) activate(layer, rows, y);
}

/* y (rows,) = x (rows, inputs) kernel (inputs,) + bias, the layer of one unit; x is `width` wide, zero beyond inputs.
 * Writes up to a multiple of LANES. */
static void project(const Layer *layer, int rows, const float *x, ptrdiff_t width, float *y) {
    for (int start = 0; start < rows; start += LANES) {
        vec sum[LANES];
        int last = rows - start - 1;
        UNROLL(16)
        for (int r = 0; r < LANES; r++) {
            const float *row = x + (start + (r < last ? r : last)) * width; /* beyond the last row, it again */
            sum[r] = load(row) * load(layer->kernel);
            for (ptrdiff_t j = LANES; j < width; j += LANES) sum[r] += load(row + j) * load(layer->kernel + j);
        }
        store(y + start, sum_rows(sum) + layer->bias[0]);
    }
}

/* matrix (D, width) = key + diag(q) product */
static void fold(const Pair *pair, const float *q, float *matrix) {
    ptrdiff_t width = pair->query.width;
    for (int d = 0; d < pair->dimension; d++)
        for (ptrdiff_t j = d * width; j < (d + 1) * width; j += LANES)
            store(matrix + j, load(pair->key + j) + q[d] * load(pair->product + j));
}

/* score (count,) of history entries keys (count, stride) for one target q (D,); offset (width of the first layer,) */
static void attend(const Pair *pair, int count, const float *keys, const float *q, const float *offset, Scratch *s,
                   float *score) {
    const Layer *layers = pair->layers;
    fold(pair, q, s->matrix);
    int hidden = larger(pair->depth - 1, 1), width = layers[hidden - 1].width;
    for (int start = 0, rows = 0, chunks = (count + ROWS - 1) / ROWS; chunks; chunks--, start += rows) {
        rows = (count - start + chunks - 1) / chunks; /* as even as can be */
        float *last = s->hidden + (ptrdiff_t)start * width, *to = hidden == 1 ? last : s->rows[0];
        dense(&layers[0], s->matrix, offset, rows, keys + (ptrdiff_t)start * pair->stride, pair->stride, to);
        for (int i = 1; i < hidden; i++) {
            const float *from = to;
            to = i == hidden - 1 ? last : s->rows[i % 2];
            dense(&layers[i], layers[i].kernel, layers[i].bias, rows, from, layers[i - 1].width, to);
        }
    }
    if (pair->depth > 1) project(&layers[hidden], count, s->hidden, width, score);
    else for (int i = 0; i < count; i++) score[i] = s->hidden[(ptrdiff_t)i * width];
}

/* weight (count,) = e^weight / sum over the whole history. Reads and writes up to a multiple of PAD, where times is 0. */
static void normalise(int count, const float *times, float *weight) {
    for (int i = count; i % PAD; i++) weight[i] = weight[0];
    vec most = load(weight), sum = {0};
    for (int i = LANES; i < count; i += LANES) most = larger_of(load(weight + i), most);
    for (int i = LANES; i > 1; i /= 2) most = larger_of(evens(most, most), odds(most, most)); /* then of all lanes */
    for (int i = 0; i < count; i += LANES) {
        vec e = exponential(load(weight + i) - most);
        store(weight + i, e);
        sum += e * load(times + i);
    }
    for (int i = LANES; i > 1; i /= 2) sum = evens(sum, sum) + odds(sum, sum);
    sum = 1.0f / sum;
    for (int i = 0; i < count; i += LANES) store(weight + i, load(weight + i) * sum);
}

/* pooled (stride,) = sum of times * weight * keys (count, stride); `share` is room for the products */
static void pool(const Pair *pair, int count, const float *times, const float *weight, float *share, const float *keys,
                 float *pooled) {
    ptrdiff_t stride = pair->stride;
    for (int i = 0; i < count; i += LANES) store(share + i, load(times + i) * load(weight + i));
    for (int j = 0; j < pair->dimension; j += LANES) {
        vec sum[4] = {{0}, {0}, {0}, {0}}; /* four chains: a single one would wait for itself */
        int i = 0;
        for (; i + 4 <= count; i += 4)
            UNROLL(4)
            for (int n = 0; n < 4; n++) sum[n] += share[i + n] * load(keys + (i + n) * stride + j);
        for (; i < count; i++) sum[0] += share[i] * load(keys + i * stride + j);
        store(pooled + j, sum[0] + sum[1] + (sum[2] + sum[3]));
    }
}

/* What one pair gives the head: in each row of input (C, stride) its D pooled floats, then D of the target and, if there are
 * three parts, D products of the two. attention (C, longest), unless NULL, becomes the weight of each history entry, and 0
 * beyond the history. */
static void feed(const Pair *pair, int parts, const Values *history, const Values *targets, Scratch *s, float *input,
                 ptrdiff_t stride, float *attention, Py_ssize_t longest) {
    ptrdiff_t step = pair->stride;
    size_t bytes = (size_t)pair->dimension * sizeof(float);
    int count = find_places(history, pair->map, pair->buckets[0], s, s->place[0], s->times);
    for (int i = count; i % PAD; i++) s->times[i] = 0;
    gather(pair, 0, s->row, count, s->keys);
    int queries = find_places(targets, pair->map, pair->buckets[1], s, s->place[1], NULL);
    for (int start = 0; start < queries; start += ROWS) {
        int rows = queries - start < ROWS ? queries - start : ROWS;
        gather(pair, 1, s->row + start, rows, s->queries);
        if (pair->depth) dense(&pair->query, pair->query.kernel, pair->query.bias, rows, s->queries, step, s->offsets);
        for (int r = 0; r < rows; r++) {
            float *pooled = s->pooled + (start + r) * step;
            if (pair->depth && count) {
                attend(pair, count, s->keys, s->queries + r * step, s->offsets + r * pair->query.width, s, s->weight);
                if (pair->softmax) normalise(count, s->times, s->weight);
            } else {
                for (int i = 0; i < count; i++) s->weight[i] = 1.0f / (float)history->count;
            }
            pool(pair, count, s->times, s->weight, s->share, s->keys, pooled);
            if (!attention) continue;
            float *row = attention + s->first[start + r] * longest;
            for (Py_ssize_t i = 0; i < longest; i++) row[i] = i < history->count ? s->weight[s->place[0][i]] : 0.0f;
        }
    }
    for (Py_ssize_t n = 0; n < targets->count; n++) {
        int place = s->place[1][n], first = s->first[place], D = pair->dimension;
        float *pooled = input + n * stride, *target = pooled + D;
        memcpy(pooled, s->pooled + place * step, bytes);
        memcpy(target, pair->tables[1] + s->row[place] * (size_t)D, bytes);
        for (int d = 0; parts > 2 && d < D; d++) target[D + d] = pooled[d] * target[d];
        if (attention && first != n)
            memcpy(attention + n * longest, attention + first * longest, (size_t)longest * sizeof(float));
    }
}

/* probability (count,) = sigmoid(head(input (count, stride)) + bias), bias in scratch */
static void click(const Model *m, int count, const float *input, ptrdiff_t stride, Scratch *s, float *probability) {
    float logit[PAD];
    for (int start = 0, rows; start < count; start += rows) {
        rows = count - start < ROWS ? count - start : ROWS;
        const float *from = input + start * stride;
        ptrdiff_t width = stride;
        for (int i = 0; i < m->depth - 1; i++) {
            const Layer *layer = &m->head[i];
            dense(layer, layer->kernel, layer->bias, rows, from, width, s->rows[i % 2]);
            from = s->rows[i % 2];
            width = layer->width;
        }
        project(&m->head[m->depth - 1], rows, from, width, logit);
        for (int r = 0; m->bias && r < rows; r++) logit[r] += s->bias[start + r];
        for (int r = rows; r < PAD; r++) logit[r] = 0;
        for (int r = 0; r < PAD; r += LANES) store(logit + r, sigmoid(load(logit + r)));
        memcpy(probability + start, logit, (size_t)rows * sizeof(float));
    }
}

/* Answer requests one after the other; returns 0, or -1 without memory */
static int forward(const Model *m, const Request *requests, Py_ssize_t count, const Answer *answer) {
    Scratch s;
    Py_ssize_t T = 1, C = 1, done = 0, stride = padded(m->head[0].inputs);
    for (Py_ssize_t i = 0; i < count; i++) {
        C = requests[i].candidates > C ? requests[i].candidates : C;
        for (int p = 0; p < m->pairs; p++) T = requests[i].values[p].count > T ? requests[i].values[p].count : T;
    }
    char *memory = aligned_alloc(ALIGN, lay_out(&s, m, (size_t)T, (size_t)C, NULL));
    if (!memory) return -1;
    lay_out(&s, m, (size_t)T, (size_t)C, memory);
    memset(s.input, 0, (size_t)(C * stride) * sizeof(float)); /* the padding stays so */
    for (Py_ssize_t i = 0; i < count; done += requests[i++].candidates) {
        float *input = s.input;
        for (int p = 0; p < m->pairs; input += m->parts * m->pair[p++].dimension) {
            float *attention = answer->attention ? answer->attention[p] + done * answer->longest[p] : NULL;
            feed(&m->pair[p], m->parts, &requests[i].values[p], &requests[i].values[m->pairs + p], &s, input, stride,
                 attention, answer->longest ? answer->longest[p] : 0);
            if (p || !m->bias) continue;
            for (Py_ssize_t n = 0; n < requests[i].candidates; n++) s.bias[n] = m->bias[s.row[s.place[1][n]]];
        }
        click(m, (int)requests[i].candidates, s.input, stride, &s, answer->probability + done);
    }
    free(memory);
    return 0;
}

#undef inlined
#undef vec
#undef ints
#undef load
#undef store
#undef all
#undef choose
#undef larger_of
#undef exponential
#undef sigmoid
#undef evens
#undef odds
#undef sum_rows
#undef tile
#undef tiles
#undef activate
#undef dense
#undef project
#undef fold
#undef attend
#undef normalise
#undef pool
#undef feed
#undef click
#undef forward
#endif
