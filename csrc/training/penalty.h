// The penalty on the squares of both weights, coefficient * (|w1|^2 + |w2|^2) / 2.
#pragma once

#include <limits>

#include "plan.h"

namespace twolayer {

// Whether the squares of a weight can be summed up as the update does it, row by row.
template <class T>
bool has_finite_squares(Matrix<T> weight, Index rows, Index cols);

// What it adds to the loss. The squares of weights that move come with their update.
template <class T>
class Penalty {
 public:
  explicit Penalty(const TrainingPlan<T>& plan) : plan(plan) {}

  // Others may have changed the weights since the last run.
  void begin_run();

  // By the weights of the batch's samples.
  double coefficient(double weight) const {
    return plan.penalty_is_shared ? plan.penalty / weight : plan.penalty;
  }

  // Whether the weights have to be looked at before a step, as their squares may be beyond all
  // numbers.
  bool may_overflow() const { return plan.penalty != 0 && !(last_squares < SAFE_SQUARES); }

  // What a step adds to the loss, by the squares of what it has moved.
  double after_step(double coefficient, double squares) {
    if (plan.penalty == 0) return 0;
    last_squares = frozen_squares + squares;
    return 0.5 * coefficient * last_squares;
  }

 private:
  // Weights with less than this in squares have no penalty beyond all numbers after one more step.
  static constexpr double SAFE_SQUARES = 1e12;

  const TrainingPlan<T>& plan;
  double frozen_squares = 0;                                      // of the weights that stay
  double last_squares = std::numeric_limits<double>::infinity();  // of all, a step ago
};

}  // namespace twolayer
