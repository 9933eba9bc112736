// RMSprop (Hinton's lecture notes; centered: Graves, arXiv:1308.0850), as torch.optim.RMSprop.
//
// Included only by the kernels_*.cpp files, inside their namespace.

struct RmsProp {
  static constexpr const char* name = "rmsprop";
  static constexpr int STATES = 3;  // average of squares, momentum buffer, average

  static StepFactors factors(const OptimizerOptions& o, Index) {
    StepFactors factors;
    factors.decay = o.weight_decay;
    factors.flags[0] = o.maximize;
    factors.flags[1] = o.centered;
    factors.f[0] = o.alpha;
    factors.f[1] = 1 - o.alpha;
    factors.f[2] = o.lr;
    factors.f[3] = o.eps;
    factors.f[4] = o.momentum;
    return factors;
  }

  explicit RmsProp(const StepFactors& f)
      : keep(f.f[0]),
        take(f.f[1]),
        lr(f.f[2]),
        eps(f.f[3]),
        momentum(f.f[4]),
        centered(f.flags[1]) {}

  template <class S>
  void step(Element<Vec<S>, STATES>& e) const {
    e.state[0] = S(keep) * e.state[0] + S(take) * (e.grad * e.grad);
    Vec<S> variance = e.state[0];
    if (centered) {
      e.state[2] += S(take) * (e.grad - e.state[2]);
      variance -= e.state[2] * e.state[2];
      // Of rounded states, above all of 16 bits, it may come out below 0; NaN stays.
      variance = variance < Vec<S>{} ? Vec<S>{} : variance;
    }
    const Vec<S> direction = e.grad / (square_root<S>(variance) + S(eps));
    if (momentum != 0) {
      e.state[1] = S(momentum) * e.state[1] + direction;
      e.w -= S(lr) * e.state[1];
    } else {
      e.w -= S(lr) * direction;
    }
  }

  double keep, take, lr, eps, momentum;
  bool centered;
};
