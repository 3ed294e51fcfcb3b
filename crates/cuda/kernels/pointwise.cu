// One value, or a few of the same place, at a time.
#include "epilogue.cuh"

// y = activation(factor x + addend); also a copy to another type.
KERNEL(256, unary, Array x, Array y, long long count, float factor, float addend, int activation) {
    take_turn();
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

// Two arrays, read by strides in elements (0: repeated), to one without gaps. Sides, outermost first;
// those before the `first` one are one.
struct Operands { long long left[6], right[6]; int sides[6], first; };
enum { ADD, SUBTRACT, MULTIPLY, DIVIDE };
DEVICE float combine(int operation, float l, float r) {
    return operation == ADD ? l + r : operation == SUBTRACT ? l - r : operation == MULTIPLY ? l * r : l / r;
}
// Where the value `i` lies in both.
DEVICE void places(const Operands& o, unsigned i, long long& left, long long& right) {
    left = right = 0;
#pragma unroll
    for (int d = 5; d >= 0; d--) {
        if (d < o.first) break;
        const unsigned rest = i / (unsigned)o.sides[d];
        const unsigned at = i - rest * o.sides[d];
        left += at * o.left[d];
        right += at * o.right[d];
        i = rest;
    }
}
KERNEL(256, binary, Array a, Array b, Array y, unsigned count, int operation, Operands o) {
    take_turn();
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    long long left, right;
    places(o, i, left, right);
    put(y, i, combine(operation, get(a, left), get(b, right)));
}
// Eight neighbours at a time, in which the last side is counted; its strides are 8, or 0 for one value that all meet.
KERNEL(256, binary_eights, Array a, Array b, Array y, unsigned count, int operation, Operands o) {
    take_turn();
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    long long left, right;
    places(o, i, left, right);
    float l[8], r[8];
    if (o.left[5]) get8(a, left, l);
    else for (int j = 0; j < 8; j++) l[j] = get(a, left);
    if (o.right[5]) get8(b, right, r);
    else for (int j = 0; j < 8; j++) r[j] = get(b, right);
    for (int j = 0; j < 8; j++) l[j] = combine(operation, l[j], r[j]);
    put8(y, i * 8LL, l);
}

// The steps after a layer, over what the layer gave: x is [rows, channels].
KERNEL(256, steps_alone, Array x, long long rows, int channels, Steps steps) {
    take_turn();
    const int chunks = (channels + 7) / 8;
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= rows * chunks) return;
    // Most have fewer than 2^32, which divide quickly.
    const long long row = i >> 32 ? i / chunks : (unsigned)i / (unsigned)chunks;
    const int column = (int)(i - row * chunks) * 8, count = channels - column < 8 ? channels - column : 8;
    float v[8];
    if (channels % 8 == 0) get8(x, row * channels + column, v);
    else for (int j = 0; j < 8; j++) v[j] = j < count ? get(x, row * channels + column + j) : 0.0f;
    finish(steps, v, row, column, channels);
}

// Rows of `half` values begin every `stride` in both. SILU: the first by SiLU of the second; GELU_TANH and SILU_FIRST:
// GELU or SiLU of the first by the second. Eight at a time where `half` divides by it.
enum { SILU_FIRST = 16 };
DEVICE float gate_of(int activation, float first, float second) {
    return activation == SILU ? first * silu(second) : (activation == GELU_TANH ? gelu_tanh(first) : silu(first)) * second;
}
KERNEL(256, gated, Array x, Array z, Array y, long long rows, int half, int stride, int activation) {
    take_turn();
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (half % 8 == 0) {
        const int chunks = half / 8;
        if (i >= rows * chunks) return;
        const long long row = i / chunks, from = row * stride + (i - row * chunks) * 8;
        float first[8], second[8];
        get8(x, from, first);
        get8(z, from, second);
        for (int j = 0; j < 8; j++) first[j] = gate_of(activation, first[j], second[j]);
        put8(y, i * 8, first);
        return;
    }
    if (i >= rows * half) return;
    const long long row = i / half, from = row * stride + (i - row * half);
    put(y, i, gate_of(activation, get(x, from), get(z, from)));
}

// Sets the word where a value is NaN or infinite. x begins on 16 bytes.
KERNEL(256, all_finite, Array x, long long count, unsigned* word) {
    take_turn();
    bool found = false;
    const long long stride = 8LL * gridDim.x * blockDim.x;
    for (long long i = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * 8; i < count; i += stride) {
        float v[8];
        if (i + 8 <= count) get8(x, i, v);
        else for (int j = 0; j < 8; j++) v[j] = i + j < count ? get(x, i + j) : 0.0f;
        for (int j = 0; j < 8; j++) found |= !is_finite(v[j]);
    }
    if (found) *word = 1;
}
