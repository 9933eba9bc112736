"""A grid search over scikit-learn's perceptron, before and after one import is changed.

An argument sets the epochs of a fit.
"""

import sys
import time
import warnings

from sklearn import neural_network
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from twolayer_kernels import sklearn as fused

warnings.simplefilter("ignore", ConvergenceWarning)
epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 60
X, y = load_digits(return_X_y=True)
grid = {
    "alpha": [1e-4, 1e-2, 1.0],
    "learning_rate_init": [1e-3, 1e-2],
    "batch_size": [100, 200],
}
seconds = {}
for name, module in (("scikit-learn", neural_network), ("fused", fused)):
    start = time.perf_counter()
    search = GridSearchCV(module.MLPClassifier(max_iter=epochs, random_state=0), grid, cv=5)
    search.fit(X, y)
    seconds[name] = time.perf_counter() - start
    print(f"{name}: {seconds[name]:.1f} s, {search.best_params_}, {search.best_score_:.4f}")
print(f"{seconds['scikit-learn'] / seconds['fused']:.1f} times as fast")
