"""The backends, one module each, and the contract that all of them keep.

A backend knows nothing of autograd, of modules or of the other backends. It
takes checked tensors of one dtype on one device, any strides, ``x`` with two
dimensions, and returns new tensors:

``unsupported(device_type, dtype) -> str | None``
    Why it cannot run such tensors, or ``None`` where it can.
``CHECKS_ARGUMENTS: bool``
    Whether the forwards refuse, with any exception and before they write, tensors whose kinds,
    dtypes, devices, layouts or shapes do not fit together. Else they are checked before the call.
``ADDS_TO_MAIN_GRAD: bool``
    Whether ``two_layer_backward`` takes ``main_grads``: float32 tensors that the gradients of w1
    and w2 are added to, in the place of being returned. One that checks its arguments does not.
``describe(dtype, sizes or None) -> str``, where there is something to say
    Which of its kernels serve a network of these sizes: batch, in, hidden and out features.
``linear_relu_forward(x, w, b) -> a``
    ``a = relu(x w^T + b)``.
``linear_relu_backward(grad_a, x, w, a, needs) -> (grad_x, grad_w, grad_b)``
    With ``dh = grad_a * (a > 0)``.
``two_layer_forward(x, w1, w2, b1, b2, keep_activation) -> (y, a or None)``
    ``a = relu(x w1^T + b1)``, ``y = a w2^T + b2``.
``two_layer_backward(grad_y, x, w1, w2, b1, a, needs) -> gradients of x, w1, w2, b1, b2``
    With ``a`` of ``None`` the activation is computed again, where a gradient needs it. ``x`` is
    ``None`` where no gradient depends on it.

``needs`` holds one bool per gradient; one that is not needed is not computed
and comes back as ``None``.
"""
