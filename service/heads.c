/* Reads the headers of a plain POST /score: what the regular expressions of heads.py say, in a twentieth of their time.
 *
 * Under overload every request is looked at, and the cost of a refusal decides how many others are scored. Of whatever is
 * not plain, whole and alone nothing is said: the HTTP parser has it.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define LINE "POST /score HTTP/1.1\r\n"
#define MOST_DIGITS 9 /* before a point and after one, as in heads.py */

typedef struct {
    const char *at;
    Py_ssize_t length;
} Text;

enum { CONTENT_LENGTH, X_DEADLINE_MS, X_REQUEST_ID, CONNECTION, PLAIN, UNUSUAL = PLAIN };

static const Text FIELDS[] = { /* in the order of the constants; those from UNUSUAL on make a request not plain */
    {"content-length", 14},    {"x-deadline-ms", 13}, {"x-request-id", 12}, {"connection", 10},
    {"transfer-encoding", 17}, {"expect", 6},         {"upgrade", 7},
};
#define KINDS ((int)(sizeof FIELDS / sizeof *FIELDS))

static int lower(int c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; }

static int is_digit(int c) { return c >= '0' && c <= '9'; }

static int is_name(int c) { return (lower(c) >= 'a' && lower(c) <= 'z') || is_digit(c) || c == '-'; }

static int is_same(Text text, Text lowered) {
    if (text.length != lowered.length) return 0;
    for (Py_ssize_t i = 0; i < text.length; i++)
        if (lower(text.at[i]) != lowered.at[i]) return 0;
    return 1;
}

static int kind_of(Text name) {
    for (int kind = 0; kind < KINDS; kind++)
        if (is_same(name, FIELDS[kind])) return kind;
    return -1;
}

static Text stripped(const char *from, const char *to) {
    while (from < to && *from == ' ') from++;
    while (from < to && to[-1] == ' ') to--;
    return (Text){from, to - from};
}

/* The end of the headers, whose known fields are then in `found`; NULL if they are not plain */
static const char *read_fields(const char *at, const char *end, Text *found) {
    for (int lines = 0;; lines++) {
        if (end - at >= 2 && at[0] == '\r' && at[1] == '\n') return lines ? at + 2 : NULL;
        Text name = {at, 0};
        while (at < end && is_name(*at)) at++;
        name.length = at - name.at;
        if (!name.length || at == end || *at++ != ':') return NULL;
        const char *value = at;
        while (at < end && *at >= ' ' && *at <= '~') at++;
        if (end - at < 2 || at[0] != '\r' || at[1] != '\n') return NULL;
        int kind = kind_of(name);
        if (kind >= UNUSUAL) return NULL;
        if (kind >= 0) {
            if (found[kind].at) return NULL; /* twice */
            found[kind] = stripped(value, at);
        }
        at += 2;
    }
}

static Py_ssize_t digits(Text text, Py_ssize_t from) {
    Py_ssize_t i = from;
    while (i < text.length && is_digit(text.at[i])) i++;
    return i - from;
}

/* -1 for what is no length */
static int64_t read_length(Text text) {
    if (!text.length || text.length > MOST_DIGITS || digits(text, 0) != text.length) return -1;
    int64_t number = 0;
    for (Py_ssize_t i = 0; i < text.length; i++) number = 10 * number + (text.at[i] - '0');
    return number;
}

static int is_number(Text text) {
    Py_ssize_t whole = digits(text, 0);
    if (whole < 1 || whole > MOST_DIGITS) return 0;
    if (whole == text.length) return 1;
    Py_ssize_t part = digits(text, whole + 1);
    return text.at[whole] == '.' && part >= 1 && part <= MOST_DIGITS && whole + 1 + part == text.length;
}

/* A float of what `is_number`; None of a field that is not there */
static PyObject *make_number(Text text) {
    if (!text.at) return Py_NewRef(Py_None);
    char copy[2 * MOST_DIGITS + 2];
    memcpy(copy, text.at, (size_t)text.length);
    copy[text.length] = 0;
    double number = PyOS_string_to_double(copy, NULL, NULL);
    return number == -1 && PyErr_Occurred() ? NULL : PyFloat_FromDouble(number);
}

static PyObject *make_bytes(Text text) {
    return text.at ? PyBytes_FromStringAndSize(text.at, text.length) : Py_NewRef(Py_None);
}

static PyObject *read_head(PyObject *module, PyObject *received) {
    (void)module;
    char *at;
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(received, &at, &length)) return NULL;
    const Py_ssize_t line = sizeof LINE - 1;
    if (length < line || memcmp(at, LINE, (size_t)line) != 0) return Py_NewRef(Py_None);
    Text found[PLAIN] = {{NULL, 0}};
    const char *body = read_fields(at + line, at + length, found);
    if (!body) return Py_NewRef(Py_None);
    int64_t body_bytes = read_length(found[CONTENT_LENGTH]);
    if (body_bytes < 0 || body_bytes != at + length - body) return Py_NewRef(Py_None);
    if (found[CONNECTION].at && !is_same(found[CONNECTION], (Text){"keep-alive", 10})) return Py_NewRef(Py_None);
    if (found[X_DEADLINE_MS].at && !is_number(found[X_DEADLINE_MS])) return Py_NewRef(Py_None);
    PyObject *deadline_ms = make_number(found[X_DEADLINE_MS]), *request_id = make_bytes(found[X_REQUEST_ID]);
    if (!deadline_ms || !request_id) {
        Py_XDECREF(deadline_ms);
        Py_XDECREF(request_id);
        return NULL;
    }
    return Py_BuildValue("LNN", (long long)body_bytes, deadline_ms, request_id);
}

static PyMethodDef METHODS[] = {
    {"read_head", read_head, METH_O,
     "read_head(received): the length of the body, the deadline in ms and the request id of one plain POST /score."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot SLOTS[] = {{0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_heads",
    .m_doc = "Reads the headers of a plain POST /score.",
    .m_methods = METHODS,
    .m_slots = SLOTS,
};

PyMODINIT_FUNC PyInit__heads(void) { return PyModuleDef_Init(&MODULE); }
