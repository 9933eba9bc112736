// The training loop of the two-layer network: many steps of forward, loss, backward and update.
//
//   h = relu(x w1^T + b1)    y = h w2^T + b2    loss(y, target)
//
// The hidden features are cut into slices, one for each thread, which keeps its rows of w1, its
// columns of w2 and its states to itself: what the threads exchange is the sum of y and its
// gradient. A weight is moved where a tile of its gradient is finished, so gradients never reach
// memory.
#pragma once

#include <vector>

#include "../scratch.h"
#include "batches.h"
#include "columns.h"
#include "layout.h"
#include "penalty.h"
#include "plan.h"

namespace twolayer {

template <class T>
class Training {
 public:
  // Throws std::invalid_argument for an unknown optimizer or loss.
  explicit Training(const TrainingPlan<T>& plan);

  // losses: one for each step, the one that was no finite number included.
  Outcome run(const TrainingData<T>& data, const Steps& steps, double* losses);

 private:
  using S = Sum<T>;

  // The hidden features of one thread. What one thread writes shares no line with what another one
  // reads or writes; nor does the plan, which nobody writes, with what changes in each step.
  struct alignas(64) Slice {
    Range features;
    Columns<T> w2;
    ScratchBuffer hidden, hidden_grad;
    ScratchBuffer outputs[2];              // its summand of y: of this step, and of the next one
    ScratchBuffer output_grad, softmax;    // the gradient: the first one's, or each one's own
    ScratchBuffer bias1_grad, bias2_grad;  // double
    double loss = 0, squares = 0;
  };

  // What one thread finds out for all others before each step.
  struct alignas(64) StepNumbers {
    double weight = 0;       // of the batch's samples
    double coefficient = 0;  // of the penalty
    bool stop_at_nonfinite = true;
    bool next_batch = false;  // whether another one follows, and
    bool goes_on = false;     // whether its forward follows on the backward of this step
    int outputs = 0;          // which of their outputs are this step's
    StepFactors factors[PARAMETERS];
    int factors_of[PARAMETERS] = {};  // most parameters share theirs
  };

  // What it keeps for itself.
  struct alignas(64) Progress {
    OptimizerOptions options[PARAMETERS];
    Index taken[PARAMETERS];  // steps
  };

  template <void (Training::*PHASE)(Index)>
  void on_all_threads();

  Matrix<T> hidden_view(const ScratchBuffer& buffer, const Slice& slice) const;
  bool is_penalty_finite() const;
  void find_numbers(const Steps& steps, Index step);
  bool step(const Steps& steps, Index index, bool more, double* loss);
  void bring_in(Index thread) { batches.bring_in(thread); }
  void forward(Index thread) { forward(thread, batches.current(), numbers.outputs); }
  void forward(Index thread, const Batch<T>& batch, int outputs);
  void find_loss(Index thread);
  bool may_move(double loss) const;
  void backward(Index thread);
  void backward_and_on(Index thread);
  void whole_step(Index thread);
  double sum_up_losses();
  void find_hidden_grad(Slice& slice, const Batch<T>& batch, Matrix<const T> grad_y);
  Update<T> update_of(ParameterIndex which, const Parameter<T>& p, double* squares) const;
  void move_bias(ParameterIndex which, Range features, const double* grad);

  const TrainingPlan<T> plan;
  const OptimizerKernel<T>* const optimizer;
  const LossKernel<T>* const loss_kernel;
  const Layout layout;
  std::vector<Slice> slices;
  std::vector<S*> output_parts[2];
  ScratchBuffer bias2;
  alignas(64) Batches<T> batches;
  StepNumbers numbers;
  Progress progress;
  Penalty<T> penalty;
};

}  // namespace twolayer
