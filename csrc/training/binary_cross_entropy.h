// Binary cross entropy of logits, as torch.nn.BCEWithLogitsLoss and as scikit-learn's
// binary_log_loss.
//
// Included only by the kernels_*.cpp files, inside their namespace.

template <class S>
inline Vec<S> absolute(Vec<S> v) {
  return v < 0 ? -v : v;
}

// 1 / (1 + e^-y), from e = e^-|y|.
template <class S>
inline Vec<S> sigmoid_of(Vec<S> y, Vec<S> e) {
  return (y < 0 ? e : S(1) - Vec<S>{}) / (S(1) + e);
}

// -(p t log s(y) + (1 - t) log(1 - s(y))) with the weight p of positive answers; where y is large
// neither sigmoid is computed and taken the logarithm of.
struct BinaryCrossEntropy {
  static constexpr const char* name = "bce_with_logits";
  static constexpr Target target = Target::values;

  static LossScales scales(bool mean, double weights, Index outputs) {
    return SquaredError::scales(mean, weights, outputs);
  }

  template <class S>
  static Vec<S> element(Vec<S> y, Vec<S> t, Vec<S> positive, Vec<S>& grad) {
    const Vec<S> e = exponential<S>(-absolute<S>(y));
    const Vec<S> negative = S(1) - t;
    const Vec<S> share = S(1) + (positive - S(1)) * t;
    grad = negative - share * sigmoid_of<S>(-y, e);
    return negative * y + share * (log_one_plus<S>(e) + (y < 0 ? -y : Vec<S>{}));
  }

  template <class T>
  static double run(const LossTask<T>& task) {
    return elementwise_loss<BinaryCrossEntropy, T>(task);
  }
};

// Of probabilities clipped at the type's epsilon, summed over the outputs.
struct SklearnBinaryLogLoss {
  static constexpr const char* name = "sklearn_binary_log_loss";
  static constexpr Target target = Target::values;

  static LossScales scales(bool, double weights, Index) { return {1 / weights, 1 / weights}; }

  template <class S>
  static Vec<S> clipped(Vec<S> p) {
    constexpr S epsilon = sizeof(S) == 4 ? S(0x1p-23) : S(0x1p-52);
    p = p < epsilon ? epsilon - Vec<S>{} : p;
    return p > 1 - epsilon ? (1 - epsilon) - Vec<S>{} : p;
  }

  template <class S>
  static Vec<S> element(Vec<S> y, Vec<S> t, Vec<S>, Vec<S>& grad) {
    const Vec<S> p = sigmoid_of<S>(y, exponential<S>(-absolute<S>(y)));
    const Vec<S> inside = clipped<S>(p);
    grad = p - t;
    return -(t * logarithm<S>(inside) + (S(1) - t) * logarithm<S>(S(1) - inside));
  }

  template <class T>
  static double run(const LossTask<T>& task) {
    return elementwise_loss<SklearnBinaryLogLoss, T>(task);
  }
};
