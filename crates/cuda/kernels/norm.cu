// Norms over the last dimension, a warp a row.
#include "epilogue.cuh"

namespace norm_parts {
// Calls `work(column, values)` with eight columns at a time; columns beyond the row are `outside`.
template <class Work> DEVICE void each(const Array& x, long long row, int channels, float outside, Work work) {
    const int lane = threadIdx.x % 32;
    for (int column = lane * 8; column < channels; column += 256) {
        float v[8];
        if (channels % 8 == 0) get8(x, row * channels + column, v);
        else for (int j = 0; j < 8; j++) v[j] = column + j < channels ? get(x, row * channels + column + j) : outside;
        work(column, v);
    }
}
}  // namespace norm_parts
using norm_parts::each;

// steps(x / sqrt(mean(x^2) + eps) weight + shift); shift may be null.
KERNEL(256, rms_norm, Array x, const float* weight, const float* shift, int rows, int channels, float eps, Steps steps) {
    const long long row = blockIdx.x * 8LL + threadIdx.x / 32;
    if (row >= rows) return;
    float sum = 0.0f;
    each(x, row, channels, 0.0f, [&](int, float (&v)[8]) { for (int j = 0; j < 8; j++) sum += v[j] * v[j]; });
    const float factor = inverse_root(sum_of_warp(sum) / channels + eps);
    each(x, row, channels, 0.0f, [&](int column, float (&v)[8]) {
        for (int j = 0; j < 8; j++) if (column + j < channels) v[j] = v[j] * factor * weight[column + j] + (shift ? shift[column + j] : 0.0f);
        finish(steps, v, row, column, channels);
    });
}

// (x - mean) / deviation (1 + scale) + shift; vectors are [rows / tokens, channels].
KERNEL(256, layer_norm_modulate, Array x, const float* shift, const float* scale, int rows, int channels, int tokens, float eps, Array y) {
    const long long row = blockIdx.x * 8LL + threadIdx.x / 32;
    if (row >= rows) return;
    float sum = 0.0f;
    each(x, row, channels, 0.0f, [&](int, float (&v)[8]) { for (int j = 0; j < 8; j++) sum += v[j]; });
    const float mean = sum_of_warp(sum) / channels;
    sum = 0.0f;
    each(x, row, channels, mean, [&](int, float (&v)[8]) { for (int j = 0; j < 8; j++) sum += (v[j] - mean) * (v[j] - mean); });
    const float factor = inverse_root(sum_of_warp(sum) / channels + eps);
    const long long at = row / tokens * channels;
    each(x, row, channels, 0.0f, [&](int column, float (&v)[8]) {
        for (int j = 0; j < 8; j++)
            if (column + j < channels) v[j] = (v[j] - mean) * factor * (1.0f + scale[at + column + j]) + shift[at + column + j];
        if (channels % 8 == 0) put8(y, row * channels + column, v);
        else for (int j = 0; j < 8; j++) if (column + j < channels) put(y, row * channels + column + j, v[j]);
    });
}
