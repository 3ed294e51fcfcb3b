// Pictures as bytes.
#include "arrays.cuh"

// (x / 2 + 1/2) 255 within 0..255, rounded to even, four bytes a word; what is no number gives 0.
KERNEL(256, signed_bytes, Array x, unsigned* y, long long count) {
    take_turn();
    const long long at = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (at >= count) return;
    unsigned word = 0;
    for (int j = 0; j < 4 && at + j < count; j++) {
        const float v = get(x, at + j) * 0.5f + 0.5f;
        const float bounded = v > 0.0f ? (v < 1.0f ? v : 1.0f) : 0.0f;
        word |= (unsigned)to_nearest(bounded * 255.0f) << 8 * j;
    }
    y[at / 4] = word;
}
