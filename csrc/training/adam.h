// Adam (Kingma and Ba, arXiv:1412.6980), AdamW (arXiv:1711.05101) and AMSGrad, as torch.optim has
// them, and Adam as scikit-learn has it: there epsilon stands outside the bias correction.
//
// Included only by the kernels_*.cpp files, inside their namespace.

struct Adam {
  static constexpr const char* name = "adam";
  static constexpr int STATES = 3;  // both moments, and the largest second one for AMSGrad

  static StepFactors factors(const OptimizerOptions& o, Index step) {
    StepFactors factors;
    factors.decay = o.weight_decay;
    factors.flags[0] = o.maximize;
    factors.flags[1] = o.amsgrad;
    factors.f[0] = 1 - o.beta1;
    factors.f[1] = o.beta2;
    factors.f[2] = 1 - o.beta2;
    factors.f[3] = o.lr / (1 - std::pow(o.beta1, double(step)));
    factors.f[4] = std::sqrt(1 - std::pow(o.beta2, double(step)));
    factors.f[5] = o.eps;
    return factors;
  }

  explicit Adam(const StepFactors& f)
      : take1(f.f[0]),
        keep2(f.f[1]),
        take2(f.f[2]),
        step_size(f.f[3]),
        inverse_correction2(1 / f.f[4]),
        eps(f.f[5]),
        amsgrad(f.flags[1]) {}

  template <class S>
  void step(Element<Vec<S>, STATES>& e) const {
    e.state[0] += S(take1) * (e.grad - e.state[0]);
    e.state[1] = S(keep2) * e.state[1] + S(take2) * (e.grad * e.grad);
    Vec<S> second = e.state[1];
    // As torch's maximum: NaN where one of them is.
    if (amsgrad) second = e.state[2] = e.state[2] >= second ? e.state[2] : second + 0 * e.state[2];
    const Vec<S> denominator = square_root<S>(second) * S(inverse_correction2) + S(eps);
    e.w -= S(step_size) * e.state[0] / denominator;
  }

  double take1, keep2, take2, step_size, inverse_correction2, eps;
  bool amsgrad;
};

// Adam whose weight decay shrinks the parameter and stays out of the moments.
struct AdamW : Adam {
  static constexpr const char* name = "adamw";

  static StepFactors factors(const OptimizerOptions& o, Index step) {
    StepFactors factors = Adam::factors(o, step);
    factors.decay = 0;
    factors.keep = 1 - o.lr * o.weight_decay;
    return factors;
  }

  using Adam::Adam;
};

struct SklearnAdam {
  static constexpr const char* name = "sklearn_adam";
  static constexpr int STATES = 2;

  // NumPy 2 computes the quotient in double: the learning rate is a NumPy scalar there, which lifts
  // float32 arrays.
  static StepFactors factors(const OptimizerOptions& o, Index step) {
    StepFactors factors;
    factors.flags[1] = o.wide;
    factors.f[0] = o.beta1;
    factors.f[1] = o.beta2;
    factors.f[2] = o.lr * std::sqrt(1 - std::pow(o.beta2, double(step))) /
                   (1 - std::pow(o.beta1, double(step)));
    factors.f[3] = o.eps;
    return factors;
  }

  explicit SklearnAdam(const StepFactors& f)
      : beta1(f.f[0]), beta2(f.f[1]), lr(f.f[2]), eps(f.f[3]), wide(f.flags[1]) {}

  template <class S>
  void step(Element<Vec<S>, STATES>& e) const {
    e.state[0] = S(beta1) * e.state[0] + S(1 - beta1) * e.grad;
    e.state[1] = S(beta2) * e.state[1] + S(1 - beta2) * (e.grad * e.grad);
    const Vec<S> denominator = square_root<S>(e.state[1]) + S(eps);
    if (sizeof(S) < sizeof(double) && wide) {
      typedef double Wide __attribute__((vector_size(lanes<S> * sizeof(double))));
      const Wide moment = __builtin_convertvector(e.state[0], Wide);
      const Wide step = lr * moment / __builtin_convertvector(denominator, Wide);
      e.w = __builtin_convertvector(__builtin_convertvector(e.w, Wide) - step, Vec<S>);
    } else {
      e.w -= S(lr) * e.state[0] / denominator;
    }
  }

  double beta1, beta2, lr, eps;
  bool wide;
};
