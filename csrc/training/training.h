// The training loop of the two-layer network: many steps of forward, loss, backward and update.
//
//   h = relu(x w1^T + b1)    y = h w2^T + b2    loss(y, target)
//
// The hidden features are cut into slices, one for each thread, which keeps its rows of w1, its
// columns of w2 and its states to itself: what the threads exchange is the sum of y and its
// gradient. A weight is moved where a tile of its gradient is finished, so gradients never reach
// memory.
#pragma once

#include <string>
#include <vector>

#include "../scratch.h"
#include "../types.h"
#include "loss.h"
#include "optimizer.h"

namespace twolayer {

// Which parameters there are, and their order everywhere.
enum ParameterIndex { W1, W2, B1, B2, PARAMETERS };

// A parameter and what moves it. One stride of a weight is 1; biases and states are adjacent, and a
// state has its parameter's strides.
template <class T>
struct Parameter {
  Matrix<T> values;  // a bias is one row; null: a bias that is not there
  bool moves = false;
  T* states[MAX_STATES] = {};
  OptimizerOptions options;
  Index steps = 0;  // taken before
};

template <class T>
struct TrainingPlan {
  Index in_features = 0, hidden_features = 0, out_features = 0;
  Index batch = 0;  // the most samples of a step
  Parameter<T> parameters[PARAMETERS];
  std::string optimizer, loss;
  LossOptions<T> loss_options;
  Index ignored_class = -100;
  double penalty = 0;              // coefficient of (w1^2 + w2^2) / 2 in the loss,
  bool penalty_is_shared = false;  // divided by the weights of the batch's samples
  int threads = 1;
};

// The samples that batches are taken from.
template <class T>
struct TrainingData {
  Matrix<const T> x;                   // samples x in_features
  Matrix<const T> target;              // samples x out_features, or
  Vector<const std::int64_t> classes;  // samples
  Vector<const T> weight;              // samples; null: 1 each
};

// The steps of one call: step i takes the samples order[first[i] .. first[i] + size[i]), or those
// numbers themselves where there is no order.
struct Steps {
  Index count = 0;
  const std::int64_t* order = nullptr;
  const std::int64_t* first = nullptr;
  const std::int64_t* size = nullptr;
  const double* rates = nullptr;  // count x PARAMETERS x 2: learning rate, momentum or beta1
  double seconds = 0;             // no further step begins after this time
  bool stop_at_nonfinite = true;
};

struct Outcome {
  Index done = 0;          // whole steps
  bool nonfinite = false;  // the loss after these was no finite number; its step was not taken
};

template <class T>
class Training {
 public:
  // Throws std::invalid_argument for an unknown optimizer or loss.
  explicit Training(const TrainingPlan<T>& plan);

  // losses: one for each step, the one that was no finite number included.
  Outcome run(const TrainingData<T>& data, const Steps& steps, double* losses);

 private:
  using S = Sum<T>;

  // A batch in the order in which a step reads it.
  struct Batch {
    Index rows = 0;
    bool has_weight = false, has_classes = false;
    Matrix<const T> x;  // where the slices share it
    ScratchBuffer x_rows, target, classes, weight;
    std::vector<double> weights;  // of the samples that each part brought in, in sum
  };

  // The hidden features of one thread. Small batches are its own too, packed once for all steps on
  // them: what another processor wrote is slow to read.
  struct alignas(64) Slice {  // nothing that one writes shares a line with what another one reads
    Range features;
    Matrix<const T> x;
    ScratchBuffer x_rows, x_packed, x_transposed_packed;
    ScratchBuffer hidden, hidden_grad, outputs;
    ScratchBuffer bias1_grad, bias2_grad;  // double
    double loss = 0, squares = 0;
  };

  Matrix<T> hidden_view(const ScratchBuffer& buffer, const Slice& slice) const;
  void take_samples(const TrainingData<T>& data, const Steps& steps, Index step, Batch& batch);
  void bring_in(const TrainingData<T>& data, const Steps& steps, Index step, Batch& batch,
                Index part);
  void bring_in_x(const TrainingData<T>& data, const Steps& steps, Index step, Batch& batch,
                  Index part);
  void prepare(const Steps& steps, Index step);
  bool step(const TrainingData<T>& data, const Steps& steps, Index index, double* loss);
  void forward(Slice& slice, const Batch& batch);
  void find_loss(Index part, const Batch& batch);
  void backward(Slice& slice, const Batch& batch);
  Update<T> update_of(ParameterIndex which, double* squares) const;
  void move_bias(ParameterIndex which, Range features, const double* grad);

  TrainingPlan<T> plan;
  const OptimizerKernel<T>* optimizer;
  const LossKernel<T>* loss_kernel;
  bool outputs_first, samples_along;  // the layouts of outputs and hidden features
  bool own_batches;                   // whether each slice has the samples for itself, packed
  Index output_stride;
  std::vector<Slice> slices;
  Batch batches[2];
  int current = 0;
  ScratchBuffer output_grad, bias2;
  std::vector<S*> output_parts;
  StepFactors factors[PARAMETERS];
  double weights = 0;  // of the current batch
  double coefficient = 0, frozen_squares = 0;
};

}  // namespace twolayer
