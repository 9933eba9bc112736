// The walk over a parameter's elements, a vector at a time, that all optimizers share.
//
// Included only by the kernels_*.cpp files, inside their namespace.

// A parameter's element and its states in vectors of the type that T is computed in.
template <class V, int STATES>
struct Element {
  V w, grad;
  V state[STATES > 0 ? STATES : 1];
};

// `Rule` has STATES and step(factors, element), which changes w and the states.
template <class Rule, class T>
void update_elements(const Update<T>& u, Index at, Index stride, Index rows, Index cols,
                     const Sum<T>* grad, Index grad_stride) {
  using S = Sum<T>;
  const Rule rule(u.factors);
  const Vec<S> sign = S(u.factors.flags[0] ? -1 : 1) - Vec<S>{};
  const Vec<S> penalty = S(u.penalty) - Vec<S>{};
  const Vec<S> decay = S(u.factors.decay) - Vec<S>{}, keep = S(u.factors.keep) - Vec<S>{};
  // Nothing times an infinite weight is NaN.
  const bool is_penalised = u.penalty != 0, decays = u.factors.decay != 0;
  Vec<S> squares = {};
  const auto step = [&](Index i, const S* g, int n) {
    Element<Vec<S>, Rule::STATES> e;
    e.w = widen(u.parameter + i, n);
    for (int s = 0; s < Rule::STATES; ++s) {
      e.state[s] = u.states[s] ? widen(u.states[s] + i, n) : Vec<S>{};
    }
    squares += e.w * e.w;
    e.grad = load_first(g, n);
    if (is_penalised) e.grad += penalty * e.w;
    e.grad *= sign;
    if (decays) e.grad += decay * e.w;
    e.w *= keep;
    rule.template step<S>(e);
    narrow(u.parameter + i, e.w, n);
    for (int s = 0; s < Rule::STATES; ++s) {
      if (u.states[s]) narrow(u.states[s] + i, e.state[s], n);
    }
  };
  for (Index row = 0; row < rows; ++row) {
    const Index first = at + row * stride;
    const S* g = grad + row * grad_stride;
    for_vectors<lanes<S>>(0, cols, [&](Index col, int n) { step(first + col, g + col, n); });
    if (u.squares) {  // row by row into the double
      *u.squares += double(horizontal_sum<S>(squares));
      squares = Vec<S>{};
    }
  }
}
