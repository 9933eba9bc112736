// Squared error, as torch.nn.MSELoss and as scikit-learn's squared_loss.
//
// Included only by the kernels_*.cpp files, inside their namespace.

struct SquaredError {
  static constexpr const char* name = "squared_error";
  static constexpr Target target = Target::values;

  static LossScales scales(bool mean, double weights, Index outputs) {
    const double scale = mean ? 1 / (weights * double(outputs)) : 1;
    return {scale, scale};
  }

  template <class S>
  static Vec<S> element(Vec<S> y, Vec<S> t, Vec<S>, Vec<S>& grad) {
    const Vec<S> difference = y - t;
    grad = 2 * difference;
    return difference * difference;
  }

  template <class T>
  static double run(const LossTask<T>& task) {
    return elementwise_loss<SquaredError, T>(task);
  }
};

// Half the mean over samples and outputs; its gradient is that of the mean over samples alone.
struct SklearnSquaredError {
  static constexpr const char* name = "sklearn_squared_error";
  static constexpr Target target = Target::values;

  static LossScales scales(bool, double weights, Index outputs) {
    return {0.5 / (weights * double(outputs)), 1 / weights};
  }

  template <class S>
  static Vec<S> element(Vec<S> y, Vec<S> t, Vec<S>, Vec<S>& grad) {
    grad = y - t;
    return grad * grad;
  }

  template <class T>
  static double run(const LossTask<T>& task) {
    return elementwise_loss<SklearnSquaredError, T>(task);
  }
};
