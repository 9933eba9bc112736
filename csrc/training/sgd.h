// Stochastic gradient descent with momentum, as torch.optim.SGD and as scikit-learn's SGDOptimizer.
//
// Included only by the kernels_*.cpp files, inside their namespace.

struct Sgd {
  static constexpr const char* name = "sgd";
  static constexpr int STATES = 1;  // the momentum buffer

  // The buffer's first value is the gradient itself.
  static StepFactors factors(const OptimizerOptions& o, Index step) {
    StepFactors factors;
    factors.decay = o.weight_decay;
    factors.flags[0] = o.maximize;
    factors.flags[1] = o.nesterov;
    factors.f[0] = o.lr;
    factors.f[1] = o.momentum;
    factors.f[2] = step == 1 ? 0 : o.momentum;
    factors.f[3] = step == 1 ? 1 : 1 - o.dampening;
    return factors;
  }

  explicit Sgd(const StepFactors& f)
      : lr(f.f[0]), momentum(f.f[1]), keep(f.f[2]), take(f.f[3]), nesterov(f.flags[1]) {}

  template <class S>
  void step(Element<Vec<S>, STATES>& e) const {
    Vec<S> direction = e.grad;
    if (momentum != 0) {
      e.state[0] = S(keep) * e.state[0] + S(take) * e.grad;
      direction = nesterov ? e.grad + S(momentum) * e.state[0] : e.state[0];
    }
    e.w -= S(lr) * direction;
  }

  double lr, momentum, keep, take;
  bool nesterov;
};

struct SklearnSgd {
  static constexpr const char* name = "sklearn_sgd";
  static constexpr int STATES = 1;  // the velocity

  static StepFactors factors(const OptimizerOptions& o, Index) {
    StepFactors factors;
    factors.flags[1] = o.nesterov;
    factors.f[0] = o.lr;
    factors.f[1] = o.momentum;
    return factors;
  }

  explicit SklearnSgd(const StepFactors& f) : lr(f.f[0]), momentum(f.f[1]), nesterov(f.flags[1]) {}

  template <class S>
  void step(Element<Vec<S>, STATES>& e) const {
    const Vec<S> step = S(lr) * e.grad;
    e.state[0] = S(momentum) * e.state[0] - step;
    e.w += nesterov ? S(momentum) * e.state[0] - step : e.state[0];
  }

  double lr, momentum;
  bool nesterov;
};
