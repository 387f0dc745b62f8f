/* Counts values of several histograms in one call, as each request has one for a dozen of them.
 *
 * In Python a call of each takes a microsecond and more where nothing of it is in the core's caches, and rows that are kept
 * until numpy can count hundreds make other memory cold. Here it is half a microsecond in all, and nothing is kept.
 *
 * Every function holds the interpreter's lock, which is what keeps threads apart; `take` lets go of what it has counted
 * before it makes objects, as that may run other Python code.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    PyObject_HEAD
    Py_ssize_t columns, buckets; /* histograms, and the buckets of all of them */
    Py_ssize_t bins;             /* of shares, from 0 to 1; the bucket beyond them is for what is larger */
    Py_ssize_t *ends;            /* of each column's buckets among all */
    double *bounds;              /* of all buckets but those of shares; no value is above the last of a column */
    double *values;              /* of the row that is being added */
    double *sums;                /* of each column, and of the shares */
    uint64_t *counts;            /* of each bucket, then of those of the shares */
    uint64_t rows;
} Counts;

static size_t counted_bytes(const Counts *c) { return (size_t)(c->buckets + c->bins + 1) * sizeof(uint64_t); }

static size_t summed_bytes(const Counts *c) { return (size_t)(c->columns + 1) * sizeof(double); }

static void *zeros(Py_ssize_t number) { return PyMem_Calloc((size_t)number + 1, sizeof(double)); }

/* Copy the bounds of each column behind one another */
static int read_bounds(Counts *c, PyObject *columns) {
    c->columns = PyTuple_Size(columns);
    for (Py_ssize_t i = 0; i < c->columns; i++) {
        PyObject *bounds = PyTuple_GetItem(columns, i);
        if (!PyTuple_Check(bounds) || !PyTuple_Size(bounds)) {
            PyErr_SetString(PyExc_TypeError, "a column must be a tuple of bounds");
            return 0;
        }
        c->buckets += PyTuple_Size(bounds);
    }
    c->ends = zeros(c->columns);
    c->bounds = zeros(c->buckets);
    c->values = zeros(c->columns);
    c->sums = zeros(c->columns);
    c->counts = zeros(c->buckets + c->bins);
    if (!c->ends || !c->bounds || !c->values || !c->sums || !c->counts) {
        PyErr_NoMemory();
        return 0;
    }
    Py_ssize_t at = 0;
    for (Py_ssize_t i = 0; i < c->columns; i++) {
        PyObject *bounds = PyTuple_GetItem(columns, i);
        for (Py_ssize_t j = 0; j < PyTuple_Size(bounds); j++) {
            c->bounds[at++] = PyFloat_AsDouble(PyTuple_GetItem(bounds, j));
            if (PyErr_Occurred()) return 0;
        }
        if (c->bounds[at - 1] != INFINITY) {
            PyErr_SetString(PyExc_ValueError, "a column's last bound must be infinity");
            return 0;
        }
        c->ends[i] = at;
    }
    return 1;
}

static PyObject *counts_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    static char *names[] = {"columns", "bins", NULL};
    PyObject *columns;
    Py_ssize_t bins;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O!n:Counts", names, &PyTuple_Type, &columns, &bins)) return NULL;
    if (bins < 0 || bins > 1 << 20) return PyErr_Format(PyExc_ValueError, "%zd is no number of bins", bins);
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Counts *c = (Counts *)allocate(type, 0); /* zeroed */
    if (!c) return NULL;
    c->bins = bins;
    if (!read_bounds(c, columns)) {
        Py_DECREF((PyObject *)c);
        return NULL;
    }
    return (PyObject *)c;
}

static void counts_free(PyObject *self) {
    Counts *c = (Counts *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyMem_Free(c->ends);
    PyMem_Free(c->bounds);
    PyMem_Free(c->values);
    PyMem_Free(c->sums);
    PyMem_Free(c->counts);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF((PyObject *)type);
}

/* Count shares, which are float32; a double has their product with a number of bins exactly */
static int add_shares(Counts *c, PyObject *array) {
    Py_buffer view;
    if (PyObject_GetBuffer(array, &view, PyBUF_FORMAT | PyBUF_ND)) return 0;
    if (!view.format || strcmp(view.format, "f") != 0) {
        PyErr_SetString(PyExc_TypeError, "shares must be float32");
        PyBuffer_Release(&view);
        return 0;
    }
    const float *shares = view.buf;
    uint64_t *counts = c->counts + c->buckets;
    double bins = (double)c->bins, sum = 0;
    for (Py_ssize_t i = 0; i < view.len / (Py_ssize_t)sizeof(float); i++) {
        double place = (double)shares[i] * bins;
        Py_ssize_t bin = !(place > 0) ? 0 : place > bins ? c->bins : (Py_ssize_t)place;
        counts[bin - (bin > 0 && (double)bin == place)]++; /* a bin has its upper bound */
        sum += (double)shares[i];
    }
    c->sums[c->columns] += sum;
    PyBuffer_Release(&view);
    return 1;
}

static PyObject *counts_add(PyObject *self, PyObject *const *arguments, Py_ssize_t given) {
    Counts *c = (Counts *)self;
    if (given < 1 || given > 2 || !PyTuple_Check(arguments[0]) || PyTuple_Size(arguments[0]) != c->columns)
        return PyErr_Format(PyExc_TypeError, "add takes a tuple of %zd numbers, and shares", c->columns);
    for (Py_ssize_t i = 0; i < c->columns; i++) {
        c->values[i] = PyFloat_AsDouble(PyTuple_GetItem(arguments[0], i));
        if (c->values[i] == -1 && PyErr_Occurred()) return NULL;
    }
    if (given == 2 && !add_shares(c, arguments[1])) return NULL;
    for (Py_ssize_t i = 0, first = 0; i < c->columns; first = c->ends[i++]) {
        Py_ssize_t place = first;
        for (Py_ssize_t j = first; j < c->ends[i] - 1; j++) place += c->bounds[j] < c->values[i];
        c->counts[place]++;
        c->sums[i] += c->values[i];
    }
    c->rows++;
    return Py_NewRef(Py_None);
}

/* A histogram as (counts, sum) */
static PyObject *histogram(const uint64_t *counts, Py_ssize_t number, double sum) {
    PyObject *list = PyList_New(number);
    for (Py_ssize_t i = 0; list && i < number; i++) {
        PyObject *count = PyLong_FromUnsignedLongLong(counts[i]);
        if (!count || PyList_SetItem(list, i, count)) Py_CLEAR(list);
    }
    return list ? Py_BuildValue("Nd", list, sum) : NULL;
}

static PyObject *histograms(const Counts *c, const uint64_t *counts, const double *sums, uint64_t rows) {
    PyObject *columns = PyList_New(c->columns);
    for (Py_ssize_t i = 0, first = 0; columns && i < c->columns; first = c->ends[i++]) {
        PyObject *column = histogram(counts + first, c->ends[i] - first, sums[i]);
        if (!column || PyList_SetItem(columns, i, column)) Py_CLEAR(columns);
    }
    if (!columns) return NULL;
    PyObject *shares = histogram(counts + c->buckets, c->bins + 1, sums[c->columns]);
    if (!shares) {
        Py_DECREF(columns);
        return NULL;
    }
    return Py_BuildValue("KNN", (unsigned long long)rows, columns, shares);
}

static PyObject *counts_take(PyObject *self, PyObject *nothing) {
    (void)nothing;
    Counts *c = (Counts *)self;
    uint64_t *counts = PyMem_Malloc(counted_bytes(c)), rows = c->rows;
    double *sums = PyMem_Malloc(summed_bytes(c));
    PyObject *taken = NULL;
    if (counts && sums) {
        memcpy(counts, c->counts, counted_bytes(c));
        memcpy(sums, c->sums, summed_bytes(c));
        memset(c->counts, 0, counted_bytes(c));
        memset(c->sums, 0, summed_bytes(c));
        c->rows = 0;
        taken = histograms(c, counts, sums, rows);
    } else {
        PyErr_NoMemory();
    }
    PyMem_Free(counts);
    PyMem_Free(sums);
    return taken;
}

static PyMethodDef COUNTS_METHODS[] = {
    {"add", (PyCFunction)(void (*)(void))counts_add, METH_FASTCALL,
     "add(row, shares=None): count a value in each column, and shares, a float32 (N,)."},
    {"take", counts_take, METH_NOARGS,
     "take(): the rows since the last time, of each column (counts by bucket, sum), and the same of the shares."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot COUNTS_SLOTS[] = {
    {Py_tp_doc, "Counts(columns, bins): of each column the upper bounds, rising and the last infinity; equal bins of shares."},
    {Py_tp_new, counts_new},
    {Py_tp_dealloc, counts_free},
    {Py_tp_methods, COUNTS_METHODS},
    {0, NULL},
};

static PyType_Spec COUNTS_SPEC = {
    .name = "service._counts.Counts",
    .basicsize = sizeof(Counts),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = COUNTS_SLOTS,
};

static int module_exec(PyObject *module) {
    PyObject *type = PyType_FromSpec(&COUNTS_SPEC);
    if (!type) return -1;
    int failed = PyModule_AddObjectRef(module, "Counts", type);
    Py_DECREF(type);
    return failed;
}

static PyModuleDef_Slot SLOTS[] = {{Py_mod_exec, module_exec}, {0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_counts",
    .m_doc = "Counts values of several histograms in one call.",
    .m_slots = SLOTS,
};

PyMODINIT_FUNC PyInit__counts(void) { return PyModuleDef_Init(&MODULE); }
