// The words kernels are written in: on a GPU, or on the CPU where EMULATED is defined. This file alone has
// inline PTX.
#pragma once
struct bf16 { unsigned short bits; };
#ifdef EMULATED
#include "emulated.hpp"
#else
#define DEVICE __device__ __forceinline__
#define KERNEL(threads, name, ...) extern "C" __global__ void __launch_bounds__(threads, 2) name(__VA_ARGS__)
#define SHARED(name) extern __shared__ __align__(128) unsigned char name[]

DEVICE float bits_to_f32(unsigned bits) { return __uint_as_float(bits); }
DEVICE float to_f32(bf16 x) { return __uint_as_float((unsigned)x.bits << 16); }
DEVICE bf16 to_bf16(float x) { bf16 y; asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); return y; }
// Two values side by side, the first in the lower half.
DEVICE unsigned pack2(float low, float high) {
    unsigned y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}
// a b + c of two values side by side, each rounded once.
DEVICE unsigned fused2(unsigned a, unsigned b, unsigned c) {
    unsigned y;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(y) : "r"(a), "r"(b), "r"(c));
    return y;
}
// The nearest whole number, the even one of two.
DEVICE int to_nearest(float x) { return __float2int_rn(x); }
// Waits until the kernel queued before is done, and lets the next one begin: cards of sm_90 on start a kernel's blocks
// before the last one's have all ended. Nothing that a kernel queued before wrote or reads is touched earlier, but for
// what was written before the one before.
DEVICE void take_turn() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;\n\tgriddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// All threads of the block.
DEVICE void barrier() { __syncthreads(); }
// All threads of the warp: what one wrote to shared memory, the others see.
DEVICE void warp_barrier() { __syncwarp(); }
// The value of the lane whose number differs in the bits of `mask`; all lanes of the warp take part.
DEVICE float shuffle_xor(float x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
DEVICE float exponential(float x) { return expf(x); }
DEVICE double exponential_wide(double x) { return exp(x); }
// Good to some units in the last place of what bf16 keeps.
DEVICE float quick_exponential(float x) { return __expf(x); }
// To two units in the last place; zero far below.
DEVICE float power_of_two(float x) { float y; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
// The other of one that is no number.
DEVICE float larger(float x, float y) { return fmaxf(x, y); }
// To two units in the last place; zero for divisors beyond 2^126.
DEVICE float quick_quotient(float x, float y) { return __fdividef(x, y); }
DEVICE float inverse_root(float x) { return rsqrtf(x); }
DEVICE float hyperbolic_tangent(float x) { return tanhf(x); }
DEVICE float error_function(float x) { return erff(x); }
DEVICE bool is_finite(float x) { return isfinite(x); }
DEVICE unsigned shared_address(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }
// 16 bytes to shared memory, of which the first `bytes` are read and the others zero; they are there once
// their group was waited for.
DEVICE void copy16(void* to, const void* from, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"(shared_address(to)), "l"(from), "r"(bytes));
}
// Ends a group of copies of this thread.
DEVICE void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until at most `left` groups of this thread are under way.
template <int left> DEVICE void wait() { asm volatile("cp.async.wait_group %0;" :: "n"(left) : "memory"); }
// max(x, 0) of two halves side by side; NaN stays.
DEVICE unsigned relu2(unsigned x) {
    unsigned y;
    asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(y) : "r"(x), "r"(0u));
    return y;
}
// Four matrices of 8x8 halves; lane l gives the address of row l % 8 of matrix l / 8.
DEVICE void load_matrices(unsigned (&r)[4], const void* p) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
        : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(p)) : "memory");
}
// The same, each matrix transposed.
DEVICE void load_matrices_transposed(unsigned (&r)[4], const void* p) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
        : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(p)) : "memory");
}
// c[16x8] += a[16x16] b[16x8], fragments as the instruction has them.
DEVICE void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// The same over bytes with a sign, c[16x8] += a[16x32] b[32x8]: four bytes where two halves were.
DEVICE void multiply_add_bytes(int (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif
