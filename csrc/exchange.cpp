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

// The bytes from the first element on that a tensor's elements span; 0 where there are none.
std::uint64_t span_of(const dlpack::Tensor& t) {
  std::uint64_t last = 0;
  for (int i = 0; i < t.ndim; ++i) {
    if (t.shape[i] == 0) return 0;
    last += std::uint64_t(t.shape[i] - 1) * std::uint64_t(t.strides[i]);
  }
  return (last + 1) * t.dtype.bits / 8;
}

// Throws unless the storage of a tensor reaches as far as its elements do. A fake or meta tensor
// has none, and `untyped_storage().resize_()` may have taken it away, as FSDP does between two
// uses.
//
// Asking the storage takes 0.1 us. A storage without memory shows in the address: it is then the
// offset into the storage alone, while memory lies above it on every 64-bit system that we know. So
// only low addresses are asked about, and tensors so large that the question costs nothing; a small
// tensor whose storage was cut short by hand is read beyond its end, as torch reads it.
void require_memory(py::handle object, const dlpack::Tensor& t) {
  constexpr std::uint64_t LOW_ADDRESS = std::uint64_t(1) << 40, LARGE = 1 << 18;
  const std::uint64_t span = span_of(t);
  const auto address = reinterpret_cast<std::uintptr_t>(t.data);
  if (span == 0 || (address >= LOW_ADDRESS && span < LARGE)) return;
  const py::object storage = object.attr("untyped_storage")();
  const auto start = storage.attr("data_ptr")().cast<std::uint64_t>();
  const auto size = storage.attr("nbytes")().cast<std::uint64_t>();
  if (start == 0 || address < start || address + t.byte_offset + span > start + size) {
    throw py::value_error("expected a tensor with memory for all of its elements");
  }
}

View torch_view(py::handle object) {
  if (exchange_api == nullptr) throw py::type_error("expected a NumPy array");
  dlpack::Tensor t;
  if (exchange_api->view_object(object.ptr(), &t) != 0) throw py::error_already_set();
  if (t.device.type != dlpack::CPU) throw py::value_error("expected a tensor on the cpu");
  if (t.ndim < 1 || t.ndim > 2) throw py::value_error("expected one or two dimensions");
  require_memory(object, t);
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
    if (view.strides[i] * array.itemsize() != array.strides(i) && array.shape(i) > 1) {
      throw py::value_error("expected elements that lie whole elements apart");
    }
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
