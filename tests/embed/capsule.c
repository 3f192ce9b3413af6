/* An extension in plain C that takes dedupcore's calls from the capsule; links nothing. */
#define PY_SSIZE_T_CLEAN
#include <dedupcore_api.h>

static const dedupcore_api *api;

/* (buffer, frame_size) -> (n_zero, n_distinct, canonical frame of the last one) */
static PyObject *find(PyObject *self, PyObject *args)
{
    Py_buffer view;
    Py_ssize_t frame_size;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*n", &view, &frame_size))
        return NULL;
    const dedupcore_span span = {view.buf, (uint64_t)(view.len / frame_size)};
    uint32_t *canonical = PyMem_Malloc(span.n_frames * sizeof *canonical);
    dedupcore_key key;
    dedupcore_result result;
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = api->key_random(&key);
    if (rc == 0)
        rc = api->find_duplicates(&span, 1, (size_t)frame_size, &key, canonical, &result);
    Py_END_ALLOW_THREADS
    PyObject *answer = NULL;
    if (rc)
        PyErr_SetString(PyExc_ValueError, api->strerror(rc));
    else
        answer = Py_BuildValue("KKI", (unsigned long long)result.n_zero, (unsigned long long)result.n_distinct,
                               (unsigned)canonical[span.n_frames - 1]);
    PyMem_Free(canonical);
    PyBuffer_Release(&view);
    return answer;
}

/* A guest with two equal pages in a pool -> (frames, pages) in use after sharing */
static PyObject *pool(PyObject *self, PyObject *args)
{
    const uint32_t gpns[] = {0, 1};
    dedupcore_pool *made;
    dedupcore_pool_counts counts = {0};
    dedupcore_key key;
    uint32_t guest;
    size_t wrong;
    (void)self, (void)args;
    api->key_seeded(&key, 1);
    if (api->pool_create(&made, 2, 8))
        return PyErr_NoMemory();
    if (api->pool_add_guest(made, 2, 0, &guest) == 0 && api->pool_write(made, guest, gpns, "ABABABABABABABAB", 2, &wrong) == 0 &&
        api->pool_share(made, &key, NULL) == 0)
        api->pool_count(made, &counts);
    api->pool_destroy(made);
    return Py_BuildValue("KK", (unsigned long long)counts.in_use, (unsigned long long)counts.pages_present);
}

static PyMethodDef methods[] = {
    {"find", find, METH_VARARGS, NULL}, {"pool", pool, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "downstream", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_downstream(void)
{
    api = dedupcore_import();
    return api ? PyModule_Create(&module) : NULL;
}
