// Whether anything wants to see a call: types, torch's thread states, and the hooks of two layers.
#include "watching.h"

#include <vector>

namespace py = pybind11;

namespace twolayer {

namespace {

// A variable of a Python module, and the value it has while nothing is going on.
struct Variable {
  PyObject *module_dict, *name, *idle;
};

// What `watch` told us to look at. The references are kept for as long as the process lives.
struct Watched {
  std::vector<PyObject*> tensor_types;  // exactly these, no subclass
  std::vector<PyObject*> questions;     // called without arguments; false while nothing is going on
  std::vector<Variable> variables;
  std::vector<PyObject*> global_hooks;  // empty containers while nothing is going on
  PyObject* layer_type = nullptr;       // torch.nn.Linear
  PyObject* layer_forward = nullptr;
};
Watched watched;

PyObject* word(const char* text) { return PyUnicode_InternFromString(text); }

PyObject* const FORWARD = word("forward");
PyObject* const PARAMETERS = word("_parameters");
PyObject* const WEIGHT = word("weight");
PyObject* const BIAS = word("bias");
PyObject* const HOOKS[] = {word("_forward_hooks"), word("_forward_pre_hooks"),
                           word("_backward_hooks"), word("_backward_pre_hooks")};

// Whether the object counts as false; one whose truth cannot be told counts as something to see.
bool is_idle(PyObject* object) {
  const int truth = PyObject_IsTrue(object);
  if (truth < 0) PyErr_Clear();
  return truth == 0;
}

bool has_exact_type(PyObject* object) {
  for (PyObject* type : watched.tensor_types) {
    if (reinterpret_cast<PyObject*>(Py_TYPE(object)) == type) return true;
  }
  return object == Py_None;
}

bool nothing_is_going_on() {
  for (const Variable& v : watched.variables) {
    if (PyDict_GetItemWithError(v.module_dict, v.name) != v.idle) return false;
  }
  for (PyObject* question : watched.questions) {
    PyObject* answer = PyObject_CallNoArgs(question);
    const bool idle = answer != nullptr && is_idle(answer);
    Py_XDECREF(answer);
    if (!idle) return false;
  }
  return true;
}

PyObject* unseen(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  bool result = !watched.tensor_types.empty();
  for (Py_ssize_t i = 0; i < count && result; ++i) result = has_exact_type(arguments[i]);
  result = result && nothing_is_going_on();
  if (PyErr_Occurred()) PyErr_Clear();  // what cannot be asked may be seen
  return PyBool_FromLong(result);
}

// Adds the weight and the bias of a layer whose call would do nothing but use them; they are
// borrowed.
bool add_parameters(PyObject* layer, PyObject** weight, PyObject** bias) {
  if (reinterpret_cast<PyObject*>(Py_TYPE(layer)) != watched.layer_type) return false;
  PyObject* attributes = PyObject_GenericGetDict(layer, nullptr);
  if (attributes == nullptr) return false;
  Py_DECREF(attributes);  // the layer holds it
  for (PyObject* name : HOOKS) {
    PyObject* hooks = PyDict_GetItemWithError(attributes, name);
    if (hooks == nullptr || !is_idle(hooks)) return false;
  }
  if (PyDict_GetItemWithError(attributes, FORWARD) != nullptr) return false;
  PyObject* parameters = PyDict_GetItemWithError(attributes, PARAMETERS);
  if (parameters == nullptr || !PyDict_Check(parameters)) return false;
  *weight = PyDict_GetItemWithError(parameters, WEIGHT);
  *bias = PyDict_GetItemWithError(parameters, BIAS);
  // A DTensor here is left to Python.
  return *weight != nullptr && *bias != nullptr && has_exact_type(*weight) && has_exact_type(*bias);
}

PyObject* plain_parameters(PyObject*, PyObject* const* layers, Py_ssize_t count) {
  PyObject* found[4];  // w1, w2, b1, b2: the order of the arguments everywhere
  bool plain = count == 2 && watched.layer_type != nullptr &&
               add_parameters(layers[0], &found[0], &found[2]) &&
               add_parameters(layers[1], &found[1], &found[3]);
  for (PyObject* hooks : watched.global_hooks) plain = plain && is_idle(hooks);
  if (plain) {
    PyObject* forward = PyObject_GetAttr(watched.layer_type, FORWARD);
    plain = forward == watched.layer_forward;
    Py_XDECREF(forward);
  }
  if (PyErr_Occurred()) PyErr_Clear();
  if (!plain) Py_RETURN_NONE;
  return PyTuple_Pack(4, found[0], found[1], found[2], found[3]);
}

void watch(py::type layer_type, py::tuple tensor_types, py::tuple questions, py::tuple variables,
           py::tuple global_hooks) {
  const auto kept = [](py::handle object) { return object.inc_ref().ptr(); };
  watched = {};
  watched.layer_type = kept(layer_type);
  watched.layer_forward = kept(layer_type.attr("forward"));
  for (py::handle type : tensor_types) watched.tensor_types.push_back(kept(type));
  for (py::handle question : questions) watched.questions.push_back(kept(question));
  for (py::handle hooks : global_hooks) watched.global_hooks.push_back(kept(hooks));
  for (py::handle variable : variables) {
    const auto [dict, name, idle] = variable.cast<std::tuple<py::dict, py::str, py::object>>();
    watched.variables.push_back({kept(dict), kept(name), kept(idle)});
  }
}

template <PyObject* (*function)(PyObject*, PyObject* const*, Py_ssize_t)>
constexpr PyMethodDef fast(const char* name, const char* doc) {
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function)),
          METH_FASTCALL, doc};
}

}  // namespace

void add_watching(py::module_& m) {
  m.def("watch", &watch, py::arg("layer_type"), py::arg("tensor_types"), py::arg("questions"),
        py::arg("variables"), py::arg("global_hooks"),
        "Tells what `unseen` and `plain_parameters` look at: see transparency.py.");
  // Past pybind11: its calls cost 0.2 us more.
  static PyMethodDef functions[] = {
      fast<unseen>("unseen",
                   "Whether each argument is exactly a Tensor, a Parameter or None, and no mode,\n"
                   "tracer, transform or profiler is active. False before `watch` was called."),
      fast<plain_parameters>("plain_parameters",
                             "The tuple (w1, w2, b1, b2) of two layers that are exactly "
                             "torch.nn.Linear and that\nnobody observes; None for others."),
      {nullptr, nullptr, 0, nullptr}};
  if (PyModule_AddFunctions(m.ptr(), functions) != 0) throw py::error_already_set();
}

}  // namespace twolayer
