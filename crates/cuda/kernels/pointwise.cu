// One value, or a few of the same place, at a time.
#include "epilogue.cuh"

// y = activation(factor x + addend); also a copy to another type.
KERNEL(256, unary, Array x, Array y, long long count, float factor, float addend, int activation) {
    const long long at = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (at + 8 <= count) {
        float v[8];
        get8(x, at, v);
        for (int j = 0; j < 8; j++) v[j] = activate(activation, factor * v[j] + addend);
        put8(y, at, v);
        return;
    }
    for (long long i = at; i < count; i++) put(y, i, activate(activation, factor * get(x, i) + addend));
}

// Two arrays, read by strides in elements (0: repeated), to one without gaps.
struct Operands { long long sides[6], left[6], right[6]; };
enum { ADD, SUBTRACT, MULTIPLY, DIVIDE };
KERNEL(256, binary, Array a, Array b, Array y, long long count, int operation, Operands o) {
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    long long rest = i, left = 0, right = 0;
    for (int d = 5; d >= 0; d--) {
        long long at = rest % o.sides[d];
        rest /= o.sides[d];
        left += at * o.left[d];
        right += at * o.right[d];
    }
    const float l = get(a, left), r = get(b, right);
    put(y, i, operation == ADD ? l + r : operation == SUBTRACT ? l - r : operation == MULTIPLY ? l * r : l / r);
}

// The steps after a layer, over what the layer gave: x is [rows, channels].
KERNEL(256, steps_alone, Array x, long long rows, int channels, Steps steps) {
    const int chunks = (channels + 7) / 8;
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= rows * chunks) return;
    const long long row = i / chunks;
    const int column = i % chunks * 8, count = channels - column < 8 ? channels - column : 8;
    float v[8];
    for (int j = 0; j < 8; j++) v[j] = j < count ? get(x, row * channels + column + j) : 0.0f;
    finish(steps, v, row, column, channels);
}

// x is [rows, 2 half]. SILU: the first half by SiLU of the second; GELU_TANH: GELU of the first by the second.
KERNEL(256, gated, Array x, Array y, long long rows, int half, int activation) {
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= rows * half) return;
    const long long from = i / half * 2 * half + i % half;
    const float first = get(x, from), second = get(x, from + half);
    put(y, i, activation == SILU ? first * silu(second) : gelu_tanh(first) * second);
}

// Sets the word where a value is NaN or infinite.
KERNEL(256, all_finite, Array x, long long count, unsigned* word) {
    bool found = false;
    const long long stride = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) found |= !is_finite(get(x, i));
    if (found) *word = 1;
}
