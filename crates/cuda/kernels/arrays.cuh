// Arrays of f32 or bf16 values; sums are f32 everywhere.
#pragma once
#include "vocabulary.cuh"

struct Array {
    void* at;
    int wide;  // f32, else bf16
    int unused;
};
struct alignas(16) Four { unsigned u[4]; };

DEVICE float low_half(unsigned u) { return to_f32({(unsigned short)u}); }
DEVICE float high_half(unsigned u) { return to_f32({(unsigned short)(u >> 16)}); }

DEVICE float get(const Array& x, long long i) { return x.wide ? ((const float*)x.at)[i] : to_f32(((const bf16*)x.at)[i]); }
DEVICE void put(const Array& y, long long i, float v) {
    if (y.wide) ((float*)y.at)[i] = v;
    else ((bf16*)y.at)[i] = to_bf16(v);
}
// Two neighbours; `i` is even.
DEVICE void put2(const Array& y, long long i, const float (&v)[2]) {
    struct alignas(8) Two { float v[2]; };
    if (y.wide) *(Two*)((float*)y.at + i) = {{v[0], v[1]}};
    else *(unsigned*)((bf16*)y.at + i) = pack2(v[0], v[1]);
}
struct alignas(16) Floats { float v[4]; };
// Eight neighbours; `i` divides by eight and the array begins on 16 bytes.
DEVICE void get8(const Array& x, long long i, float (&v)[8]) {
    if (x.wide) {
        Floats low = *(const Floats*)((const float*)x.at + i), high = *(const Floats*)((const float*)x.at + i + 4);
        for (int j = 0; j < 4; j++) { v[j] = low.v[j]; v[j + 4] = high.v[j]; }
    } else {
        Four u = *(const Four*)((const bf16*)x.at + i);
        for (int j = 0; j < 4; j++) { v[2 * j] = low_half(u.u[j]); v[2 * j + 1] = high_half(u.u[j]); }
    }
}
DEVICE void put8(const Array& y, long long i, const float (&v)[8]) {
    if (y.wide) {
        *(Floats*)((float*)y.at + i) = {v[0], v[1], v[2], v[3]};
        *(Floats*)((float*)y.at + i + 4) = {v[4], v[5], v[6], v[7]};
    } else {
        *(Four*)((bf16*)y.at + i) = {pack2(v[0], v[1]), pack2(v[2], v[3]), pack2(v[4], v[5]), pack2(v[6], v[7])};
    }
}

enum { IDENTITY, RELU, SILU, GELU_TANH, GELU_ERF };
DEVICE float silu(float x) { return quick_quotient(x, 1.0f + exponential(-x)); }
DEVICE float gelu_tanh(float x) { return 0.5f * x * (1.0f + hyperbolic_tangent(0.7978845608f * (x + 0.044715f * x * x * x))); }
DEVICE float activate(int kind, float x) {
    if (kind == RELU) return x > 0.0f || x != x ? x : 0.0f;
    if (kind == SILU) return silu(x);
    if (kind == GELU_TANH) return gelu_tanh(x);
    if (kind == GELU_ERF) return 0.5f * x * (1.0f + error_function(0.7071067812f * x));
    return x;
}
// The sum over the lanes of a warp, in every lane.
DEVICE float sum_of_warp(float x) {
    for (int mask = 16; mask > 0; mask /= 2) x += shuffle_xor(x, mask);
    return x;
}
DEVICE float largest_of_warp(float x) {
    for (int mask = 16; mask > 0; mask /= 2) { float other = shuffle_xor(x, mask); x = other > x ? other : x; }
    return x;
}
