// Tensors of torch and arrays of NumPy, seen from C++ without the headers of either.
#include "exchange.h"

#include <pybind11/numpy.h>

namespace py = pybind11;

namespace twolayer {

namespace {

// The part of the DLPack 1.x interface that is used here, from the standard's header dlpack.h.
namespace dlpack {

struct Device {
  std::int32_t type, id;
};
constexpr std::int32_t CPU = 1;

struct DataType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};
constexpr std::uint8_t FLOAT = 2, BFLOAT = 4;

struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;
  std::uint64_t byte_offset;
};

struct ExchangeApi {
  std::uint32_t major, minor;
  ExchangeApi* previous;
  void (*allocate)();
  void (*from_object)();
  void (*to_object)();
  int (*view_object)(void* object, Tensor* out);
  void (*current_stream)();
};

}  // namespace dlpack

const dlpack::ExchangeApi* exchange_api = nullptr;

View torch_view(py::handle object) {
  if (exchange_api == nullptr) throw py::type_error("expected a NumPy array");
  dlpack::Tensor t;
  if (exchange_api->view_object(object.ptr(), &t) != 0) throw py::error_already_set();
  if (t.device.type != dlpack::CPU) throw py::value_error("expected a tensor on the cpu");
  if (t.ndim < 1 || t.ndim > 2) throw py::value_error("expected one or two dimensions");
  View view;
  view.data = static_cast<char*>(t.data) + t.byte_offset;
  view.dims = t.ndim;
  for (int i = 0; i < t.ndim; ++i) {
    view.shape[i] = t.shape[i];
    view.strides[i] = t.strides[i];
  }
  if (t.dtype.code == dlpack::FLOAT && t.dtype.bits == 32) {
    view.dtype = DType::float32;
  } else if (t.dtype.code == dlpack::FLOAT && t.dtype.bits == 64) {
    view.dtype = DType::float64;
  } else if (t.dtype.code == dlpack::FLOAT && t.dtype.bits == 16) {
    view.dtype = DType::float16;
  } else if (t.dtype.code == dlpack::BFLOAT && t.dtype.bits == 16) {
    view.dtype = DType::bfloat16;
  } else {
    throw py::type_error("expected float32, float64, bfloat16 or float16");
  }
  return view;
}

View numpy_view(py::handle object) {
  const auto array = py::reinterpret_borrow<py::array>(object);
  if (array.ndim() < 1 || array.ndim() > 2) throw py::value_error("expected one or two dimensions");
  View view;
  view.data = const_cast<void*>(array.data());
  view.dims = int(array.ndim());
  for (int i = 0; i < view.dims; ++i) {
    view.shape[i] = array.shape(i);
    view.strides[i] = array.strides(i) / array.itemsize();
  }
  if (array.dtype().byteorder() != '=') throw py::type_error("expected the native byte order");
  switch (array.dtype().char_()) {
    case 'f':
      view.dtype = DType::float32;
      break;
    case 'd':
      view.dtype = DType::float64;
      break;
    case 'e':
      view.dtype = DType::float16;
      break;
    default:
      throw py::type_error("expected float32, float64 or float16");
  }
  return view;
}

}  // namespace

void use_exchange_api(py::capsule capsule) {
  const auto* api = static_cast<const dlpack::ExchangeApi*>(
      PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  if (api == nullptr) throw py::error_already_set();
  while (api != nullptr && api->major != 1) api = api->previous;
  if (api == nullptr || api->view_object == nullptr) {
    throw py::import_error("this torch exchanges tensors by another DLPack version than 1");
  }
  exchange_api = api;
}

View view_of(py::handle object) {
  if (object.is_none()) return {};
  return py::isinstance<py::array>(object) ? numpy_view(object) : torch_view(object);
}

}  // namespace twolayer
