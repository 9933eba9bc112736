// The Python class Training: a network with what moves it, and runs of steps on given samples.
//
// Arguments are as in ../bindings.cpp; whole numbers come as NumPy arrays of int64.
#include "bindings.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include "../arguments.h"
#include "training.h"

namespace py = pybind11;
using namespace py::literals;

namespace twolayer {

namespace {

using Numbers = py::array_t<std::int64_t, py::array::c_style>;
using Reals = py::array_t<double, py::array::c_style>;

struct RunArguments {
  View x, target, weight;
  const Numbers *classes, *order;
  const Numbers &first, &size;
  const Reals* rates;
  Reals& losses;
  double seconds;
  bool stop_at_nonfinite;
  Neighbour neighbour;
};

class AnyTraining {
 public:
  virtual ~AnyTraining() = default;
  virtual Outcome run(const RunArguments& arguments) = 0;
};

double number(const py::dict& options, const char* name) {
  return options.contains(name) ? options[name].cast<double>() : 0.0;
}

bool flag(const py::dict& options, const char* name) {
  return options.contains(name) && options[name].cast<bool>();
}

OptimizerOptions options_of(const py::dict& d) {
  OptimizerOptions options;
  options.lr = number(d, "lr");
  options.weight_decay = number(d, "weight_decay");
  options.momentum = number(d, "momentum");
  options.dampening = number(d, "dampening");
  options.beta1 = number(d, "beta1");
  options.beta2 = number(d, "beta2");
  options.eps = number(d, "eps");
  options.alpha = number(d, "alpha");
  options.nesterov = flag(d, "nesterov");
  options.amsgrad = flag(d, "amsgrad");
  options.centered = flag(d, "centered");
  options.maximize = flag(d, "maximize");
  options.wide = flag(d, "wide");
  return options;
}

// The values of a parameter or state, of this shape; one stride of two is 1.
template <class T>
Matrix<T> values_of(const View& view, DType dtype, Index rows, Index cols, const char* name) {
  if (view.dims == 1) {
    require_vector(view, dtype, cols, name);
    require(cols <= 1 || view.strides[0] == 1, name);
    return {static_cast<T*>(view.data), cols, 1};
  }
  require_matrix(view, dtype, rows, cols, name);
  const Matrix<T> m = matrix<T>(view);
  require(m.row_stride == 1 || m.col_stride == 1 || (rows <= 1 && cols <= 1) || rows * cols == 0,
          name);
  return m;
}

template <class T>
class TypedTraining : public AnyTraining {
 public:
  TypedTraining(int threads, DType dtype, const View (&parameters)[PARAMETERS], Index batch,
                const std::string& optimizer, const py::list& movers, const std::string& loss,
                const py::dict& loss_options)
      : dtype(dtype) {
    TrainingPlan<T> plan;
    plan.threads = threads;
    plan.batch = batch;
    plan.in_features = parameters[W1].shape[1];
    plan.hidden_features = parameters[W1].shape[0];
    plan.out_features = parameters[W2].shape[0];
    in_features = plan.in_features, out_features = plan.out_features, most = batch;
    plan.optimizer = optimizer;
    plan.loss = loss;
    const Index rows[] = {plan.hidden_features, plan.out_features, 1, 1};
    const Index cols[] = {plan.in_features, plan.hidden_features, plan.hidden_features,
                          plan.out_features};
    const char* const names[] = {"w1", "w2", "b1", "b2"};
    for (int i = 0; i < PARAMETERS; ++i) {
      Parameter<T>& p = plan.parameters[i];
      if (!parameters[i]) continue;
      require(parameters[i].dims == (i < B1 ? 2 : 1), names[i]);
      p.values = values_of<T>(parameters[i], dtype, rows[i], cols[i], names[i]);
      if (movers[std::size_t(i)].is_none()) continue;
      const auto mover = movers[std::size_t(i)].cast<py::dict>();
      p.moves = true;
      p.options = options_of(mover);
      p.steps = Index(number(mover, "steps"));
      const auto states = mover["states"].cast<py::list>();
      require(states.size() <= MAX_STATES, "states");
      for (std::size_t s = 0; s < states.size(); ++s) {
        const View state = view_of(states[s]);
        if (!state) continue;
        const Matrix<T> m = values_of<T>(state, dtype, rows[i], cols[i], "states");
        const bool alike = (rows[i] <= 1 || m.row_stride == p.values.row_stride) &&
                           (cols[i] <= 1 || m.col_stride == p.values.col_stride);
        require(alike, "a state must have its parameter's strides");
        p.states[s] = m.data;
      }
    }
    plan.loss_options.mean = flag(loss_options, "mean");
    plan.loss_options.label_smoothing = number(loss_options, "label_smoothing");
    plan.loss_options.class_weight = vector_of(loss_options, "class_weight", class_weight);
    plan.loss_options.pos_weight = vector_of(loss_options, "pos_weight", pos_weight);
    if (loss_options.contains("ignore_index")) {
      plan.ignored_class = loss_options["ignore_index"].cast<Index>();
    }
    plan.penalty = number(loss_options, "penalty");
    plan.penalty_is_shared = flag(loss_options, "penalty_is_shared");
    training = std::make_unique<Training<T>>(plan);
  }

  Outcome run(const RunArguments& a) override {
    TrainingData<T> data;
    const Index samples = a.x.shape[0];
    require_matrix(a.x, dtype, samples, in_features, "x");
    require_matrix(a.target, dtype, samples, out_features, "target");
    require_vector(a.weight, dtype, samples, "weight");
    data.x = matrix<const T>(a.x);
    if (a.target) data.target = matrix<const T>(a.target);
    if (a.weight) data.weight = vector<const T>(a.weight);
    Steps steps;
    steps.count = a.first.size();
    steps.first = a.first.data();
    steps.size = a.size.data();
    require(a.size.size() == steps.count && a.losses.size() >= steps.count, "size, losses");
    Index places = samples;
    if (a.order) {
      steps.order = a.order->data();
      places = a.order->size();
      for (Index i = 0; i < places; ++i) {
        require(0 <= steps.order[i] && steps.order[i] < samples, "order");
      }
    }
    for (Index i = 0; i < steps.count; ++i) {
      require(0 <= steps.first[i] && 0 <= steps.size[i] && steps.size[i] <= most &&
                  steps.first[i] + steps.size[i] <= places,
              "first, size");
    }
    require(bool(a.target) != (a.classes != nullptr), "target, classes");
    if (a.classes) {
      require(a.classes->size() == samples, "classes");
      data.classes = {a.classes->data(), 1};
    }
    if (a.rates) {
      require(a.rates->size() == steps.count * PARAMETERS * 2, "rates");
      steps.rates = a.rates->data();
    }
    steps.seconds = a.seconds;
    steps.stop_at_nonfinite = a.stop_at_nonfinite;
    double* losses = a.losses.mutable_data();
    Outcome outcome;
    without_gil([&] {
      // The pool yields to other programs: better in a run of many slices of time.
      const CalledBeside neighbour(goes_on ? Neighbour::none : a.neighbour);
      outcome = training->run(data, steps, losses);
    });
    goes_on = outcome.done < steps.count && !outcome.nonfinite;
    return outcome;
  }

 private:
  const Sum<T>* vector_of(const py::dict& options, const char* name, std::vector<Sum<T>>& into) {
    if (!options.contains(name) || options[name].is_none()) return nullptr;
    into = options[name].cast<std::vector<Sum<T>>>();
    require(Index(into.size()) == out_features, name);
    return into.data();
  }

  DType dtype;
  Index in_features, out_features, most;
  bool goes_on = false;  // whether the last run was ended by its time
  std::vector<Sum<T>> class_weight, pos_weight;
  std::unique_ptr<Training<T>> training;
};

// Holds what the pointers point into.
class PyTraining {
 public:
  PyTraining(int threads, py::object w1, py::object w2, py::object b1, py::object b2, Index batch,
             const std::string& optimizer, py::list movers, const std::string& loss,
             const py::dict& loss_options)
      : kept{w1, w2, b1, b2, movers},
        neighbour(py::isinstance<py::array>(w1) ? Neighbour::none : Neighbour::torch) {
    const View parameters[PARAMETERS] = {view_of(w1), view_of(w2), view_of(b1), view_of(b2)};
    require(parameters[W1].dims == 2 && parameters[W2].dims == 2, "w1, w2");
    const DType dtype = parameters[W1].dtype;
    with_type(dtype, [&](auto type) {
      using T = decltype(type);
      training = std::make_unique<TypedTraining<T>>(threads, dtype, parameters, batch, optimizer,
                                                    movers, loss, loss_options);
    });
  }

  py::tuple run(py::object x, py::object target, const std::optional<Numbers>& classes,
                py::object weight, const std::optional<Numbers>& order, const Numbers& first,
                const Numbers& size, const std::optional<Reals>& rates, Reals losses,
                double seconds, bool stop_at_nonfinite) {
    const Outcome outcome =
        training->run({view_of(x), view_of(target), view_of(weight), classes ? &*classes : nullptr,
                       order ? &*order : nullptr, first, size, rates ? &*rates : nullptr, losses,
                       seconds, stop_at_nonfinite, neighbour});
    taken += outcome.done;
    if (outcome.bad_sample >= 0) {
      throw std::out_of_range("fit: y[" + std::to_string(outcome.bad_sample) +
                              "] is no class of the network's any more, and no ignored one");
    }
    return py::make_tuple(outcome.done, outcome.nonfinite);
  }

  Index taken = 0;

 private:
  std::vector<py::object> kept;
  Neighbour neighbour;
  std::unique_ptr<AnyTraining> training;
};

}  // namespace

void bind_training(py::module_& m) {
  py::class_<PyTraining>(m, "Training", "The training loop of one network, kept between runs.")
      .def(py::init<int, py::object, py::object, py::object, py::object, Index, const std::string&,
                    py::list, const std::string&, const py::dict&>(),
           "threads"_a, "w1"_a, "w2"_a, "b1"_a, "b2"_a, "batch"_a, "optimizer"_a, "movers"_a,
           "loss"_a, "loss_options"_a,
           "movers: for w1, w2, b1 and b2 None, or a dict of options, `states` and `steps` taken.")
      .def("run", &PyTraining::run, "x"_a, "target"_a, "classes"_a, "weight"_a, "order"_a,
           "first"_a, "size"_a, "rates"_a, py::arg("losses").noconvert(), "seconds"_a,
           "stop_at_nonfinite"_a,
           "Takes steps on order[first[i] : first[i] + size[i]] and writes their losses. Returns\n"
           "how many were taken, and whether the next one's loss was no finite number.")
      .def_readonly("taken", &PyTraining::taken, "The steps taken in all runs.");
}

}  // namespace twolayer
