// Hopper's own words: copies of boxes that complete on a barrier, and products of four warps. Cards of sm_90a alone.
#pragma once
#include "vocabulary.cuh"
#ifdef EMULATED
#include "emulated_hopper.hpp"
#else
// A tensor in memory and the box that is copied of it, as the driver encodes them.
struct alignas(64) TensorMap { unsigned long long words[16]; };
struct alignas(8) Arrival { unsigned long long state; };
#define MAP const __grid_constant__ TensorMap
// Boxes swizzled over rows of 128 bytes lie at multiples of 1024.
#define SHARED_BOXES(name) extern __shared__ __align__(1024) unsigned char name[]
#define KERNEL_ALONE(threads, name, ...) extern "C" __global__ void __launch_bounds__(threads, 1) name(__VA_ARGS__)

// A barrier that `count` arrivals complete, and all the bytes that they announce.
DEVICE void arrival_init(Arrival* a, int count) { asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" :: "r"(shared_address(a)), "r"(count)); }
DEVICE void arrivals_visible() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
DEVICE void arrive(Arrival* a) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" :: "r"(shared_address(a)) : "memory"); }
DEVICE void arrive_expecting(Arrival* a, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" :: "r"(shared_address(a)), "r"(bytes) : "memory");
}
// Until the phase of this parity is complete.
DEVICE void await(Arrival* a, int parity) {
    asm volatile("{\n.reg .pred p;\nagain:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@p bra done;\nbra again;\ndone:\n}"
        :: "r"(shared_address(a)), "r"(parity) : "memory");
}
DEVICE void prefetch_map(const TensorMap& map) { asm volatile("prefetch.tensormap [%0];" :: "l"(&map) : "memory"); }
// The box whose first value is at (x, y), innermost first; zeros where it leaves the tensor.
DEVICE void load_box2(void* to, const TensorMap& map, Arrival* a, int x, int y) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
        :: "r"(shared_address(to)), "l"(&map), "r"(shared_address(a)), "r"(x), "r"(y) : "memory");
}
DEVICE void load_box4(void* to, const TensorMap& map, Arrival* a, int x, int y, int z, int w) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];"
        :: "r"(shared_address(to)), "l"(&map), "r"(shared_address(a)), "r"(x), "r"(y), "r"(z), "r"(w) : "memory");
}
// Threads of some warps of the block.
template <int id, int threads> DEVICE void named_barrier() { asm volatile("bar.sync %0, %1;" :: "n"(id), "n"(threads) : "memory"); }
DEVICE void group_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void group_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Until at most `left` groups of products of these four warps are under way.
template <int left> DEVICE void group_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(left) : "memory"); }
// An operand in rows of 128 bytes, swizzled as copies of boxes leave them.
DEVICE unsigned long long rows_of_128(const void* p) {
    return (unsigned long long)((shared_address(p) & 0x3ffff) >> 4) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}
#define BRISK_LIST0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define BRISK_LIST1 "%8, %9, %10, %11, %12, %13, %14, %15"
#define BRISK_LIST2 "%16, %17, %18, %19, %20, %21, %22, %23"
#define BRISK_LIST3 "%24, %25, %26, %27, %28, %29, %30, %31"
#define BRISK_LIST4 "%32, %33, %34, %35, %36, %37, %38, %39"
#define BRISK_LIST5 "%40, %41, %42, %43, %44, %45, %46, %47"
#define BRISK_LIST6 "%48, %49, %50, %51, %52, %53, %54, %55"
#define BRISK_LIST7 "%56, %57, %58, %59, %60, %61, %62, %63"
#define BRISK_LIST8 "%64, %65, %66, %67, %68, %69, %70, %71"
#define BRISK_LIST9 "%72, %73, %74, %75, %76, %77, %78, %79"
#define BRISK_LIST10 "%80, %81, %82, %83, %84, %85, %86, %87"
#define BRISK_LIST11 "%88, %89, %90, %91, %92, %93, %94, %95"
#define BRISK_LIST12 "%96, %97, %98, %99, %100, %101, %102, %103"
#define BRISK_LIST13 "%104, %105, %106, %107, %108, %109, %110, %111"
#define BRISK_LIST14 "%112, %113, %114, %115, %116, %117, %118, %119"
#define BRISK_LIST15 "%120, %121, %122, %123, %124, %125, %126, %127"
#define BRISK_SUMS(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
// d[64 x columns] (+)= a[64 x 16] b[columns x 16]^T
#define BRISK_GROUP(columns, count, a, b, keep, list, ...) \
    DEVICE void group_multiply(float (&d)[count], unsigned long long left, unsigned long long right, int kept) { \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" keep ", 0;\n" \
            "wgmma.mma_async.sync.aligned.m64n" columns "k16.f32.bf16.bf16 {" list "}, %" a ", %" b ", p, 1, 1, 0, 0;\n}" \
            : __VA_ARGS__ : "l"(left), "l"(right), "r"(kept)); \
    }
BRISK_GROUP("64", 32, "32", "33", "34", BRISK_LIST0 ", " BRISK_LIST1 ", " BRISK_LIST2 ", " BRISK_LIST3,
    BRISK_SUMS(0), BRISK_SUMS(8), BRISK_SUMS(16), BRISK_SUMS(24))
BRISK_GROUP("72", 36, "36", "37", "38", BRISK_LIST0 ", " BRISK_LIST1 ", " BRISK_LIST2 ", " BRISK_LIST3 ", %32, %33, %34, %35",
    BRISK_SUMS(0), BRISK_SUMS(8), BRISK_SUMS(16), BRISK_SUMS(24), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]))
BRISK_GROUP("96", 48, "48", "49", "50", BRISK_LIST0 ", " BRISK_LIST1 ", " BRISK_LIST2 ", " BRISK_LIST3 ", " BRISK_LIST4 ", " BRISK_LIST5,
    BRISK_SUMS(0), BRISK_SUMS(8), BRISK_SUMS(16), BRISK_SUMS(24), BRISK_SUMS(32), BRISK_SUMS(40))
BRISK_GROUP("128", 64, "64", "65", "66", BRISK_LIST0 ", " BRISK_LIST1 ", " BRISK_LIST2 ", " BRISK_LIST3 ", " BRISK_LIST4 ", " BRISK_LIST5 ", " BRISK_LIST6 ", " BRISK_LIST7,
    BRISK_SUMS(0), BRISK_SUMS(8), BRISK_SUMS(16), BRISK_SUMS(24), BRISK_SUMS(32), BRISK_SUMS(40), BRISK_SUMS(48), BRISK_SUMS(56))
BRISK_GROUP("176", 88, "88", "89", "90", BRISK_LIST0 ", " BRISK_LIST1 ", " BRISK_LIST2 ", " BRISK_LIST3 ", " BRISK_LIST4 ", " BRISK_LIST5 ", " BRISK_LIST6 ", " BRISK_LIST7 ", " BRISK_LIST8 ", " BRISK_LIST9 ", " BRISK_LIST10,
    BRISK_SUMS(0), BRISK_SUMS(8), BRISK_SUMS(16), BRISK_SUMS(24), BRISK_SUMS(32), BRISK_SUMS(40), BRISK_SUMS(48), BRISK_SUMS(56), BRISK_SUMS(64), BRISK_SUMS(72), BRISK_SUMS(80))
BRISK_GROUP("256", 128, "128", "129", "130", BRISK_LIST0 ", " BRISK_LIST1 ", " BRISK_LIST2 ", " BRISK_LIST3 ", " BRISK_LIST4 ", " BRISK_LIST5 ", " BRISK_LIST6 ", " BRISK_LIST7 ", " BRISK_LIST8 ", " BRISK_LIST9 ", " BRISK_LIST10 ", " BRISK_LIST11 ", " BRISK_LIST12 ", " BRISK_LIST13 ", " BRISK_LIST14 ", " BRISK_LIST15,
    BRISK_SUMS(0), BRISK_SUMS(8), BRISK_SUMS(16), BRISK_SUMS(24), BRISK_SUMS(32), BRISK_SUMS(40), BRISK_SUMS(48), BRISK_SUMS(56), BRISK_SUMS(64), BRISK_SUMS(72), BRISK_SUMS(80), BRISK_SUMS(88), BRISK_SUMS(96), BRISK_SUMS(104), BRISK_SUMS(112), BRISK_SUMS(120))
#endif
