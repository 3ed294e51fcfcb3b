//! Bugs planted into kernels, each of which the suite must find.

use std::path::Path;
use std::process::Command;

use brisk_cuda::Precision;
use brisk_cuda::suite::{self, Size};
use brisk_cuda_emulated::{Door, device_over};
use libloading::Library;

/// A kernel file, a piece of it, and what stands there instead.
type Planted = (&'static str, &'static str, &'static str);

const IN_PRODUCTS: &[Planted] = &[
    (
        "product",
        "        wait<STAGES - 2>();\n        barrier();",
        "        wait<STAGES - 2>();",
    ),
    ("product", "wait<STAGES - 2>()", "wait<STAGES - 1>()"),
    (
        "product",
        "load(step + STAGES - 1);\n        commit();",
        "load(step + STAGES - 1);",
    ),
    ("product", "lane / 8 % 2", "lane / 16"),
    (
        "product",
        "inside = column0 + r < columns && k < depth;",
        "inside = column0 + r < columns - 1 && k < depth;",
    ),
    (
        "product",
        "bs[n / 2][n % 2 * 2 + 1]",
        "bs[n / 2][n % 2 * 2]",
    ),
    (
        "product",
        "    float* room = (float*)memory;\n    barrier();",
        "    float* room = (float*)memory;",
    ),
    ("product", "i / 2 * 8 + lane / 4", "i % 2 * 8 + lane / 4"),
    (
        "precise",
        "        wait<0>();\n        barrier();",
        "        barrier();",
    ),
    (
        "precise",
        "        }\n        barrier();\n    }",
        "        }\n    }",
    ),
    (
        "loaders.cuh",
        "inside = row.inside && k < depth;",
        "inside = row.inside;",
    ),
    ("loaders.cuh", "tap % w.side;\n", "tap / w.side;\n"),
    (
        "loaders.cuh",
        "(unsigned)left < (unsigned)w.width",
        "left < w.width",
    ),
    ("loaders.cuh", "w.top -= down;", "w.top += down;"),
    (
        "loaders.cuh",
        "2 * w.columns + 2 * x + right",
        "2 * w.columns + 2 * x + down",
    ),
    (
        "epilogue.cuh",
        "row / s.rows_per_gate * columns",
        "row * columns % columns",
    ),
    ("epilogue.cuh", "y % 2 * 2 + x % 2", "x % 2 * 2 + y % 2"),
    (
        "epilogue.cuh",
        "if (j < count) v[j] += s.bias[column + j]",
        "if (j < count) v[j] += s.bias[column]",
    ),
];

const IN_FEW_BITS: &[Planted] = &[
    ("low_bit", "v[j] *= factors[k + j];", "v[j] *= factors[k];"),
    (
        "low_bit",
        "to_nearest(v[j] * inverse)",
        "(int)(v[j] * inverse)",
    ),
    (
        "low_bit",
        "for (int part = 0; part < 4; part++)",
        "for (int part = 0; part < 3; part++)",
    ),
    (
        "low_bit",
        "    barrier();\n    for (int i = thread; i < 16 * 32",
        "    for (int i = thread; i < 16 * 32",
    ),
    (
        "low_bit",
        "multiply_add(sums[n], second, right.u[2], right.u[3])",
        "multiply_add(sums[n], second, right.u[3], right.u[2])",
    ),
    (
        "low_bit",
        "        wait<STAGES - 2>();\n        barrier();",
        "        barrier();",
    ),
    (
        "low_bit",
        "step < STAGES - 1; step++) {\n        if (step < count) load(step);\n        commit();",
        "step < STAGES - 1; step++) {\n        if (step < count) load(step);",
    ),
    ("low_bit", "branch ? step - whole : step", "step"),
    (
        "low_bit",
        "x_scales[row] * w_scales[column]",
        "x_scales[row] * w_scales[column0]",
    ),
    (
        "low_bit",
        "    float* room = (float*)memory;\n    barrier();\n#pragma",
        "    float* room = (float*)memory;\n#pragma",
    ),
    (
        "few_rows_tiles",
        "within % (EACH / 8) * 4 + within / (EACH / 8)",
        "within",
    ),
    (
        "few_rows_tiles",
        ">> 4 * i & 0x000f000fu",
        ">> 4 * (3 - i) & 0x000f000fu",
    ),
    (
        "few_rows_tiles",
        "const long long group = (row * w.depth + k) / 32;",
        "const long long group = (row * w.depth + k) / 64;",
    ),
    (
        "few_rows_tiles",
        "w.zeros ? twice(w.zeros[group]) : 0x80008000u",
        "0x80008000u",
    ),
    (
        "few_rows_tiles",
        "to_f32(w.scales[(row * w.depth + k) / 32])",
        "to_f32(w.scales[row * w.depth / 32])",
    ),
    ("few_rows_tiles", ">> 16 * (i % 2)", ">> 16 * (i / 2)"),
    (
        "few_rows_tiles",
        "r < rows && k0 + c * 8 < inputs",
        "r < rows",
    ),
    (
        "few_rows_tiles",
        "        wait<1>();\n        barrier();",
        "        wait<1>();",
    ),
    (
        "few_rows_tiles",
        "        } else {\n            commit();\n        }",
        "        }",
    ),
    (
        "few_rows_tiles",
        "        barrier();\n    }\n    float* room",
        "    }\n    float* room",
    ),
    (
        "few_rows_tiles",
        "for (int span = 0; span < spans; span++)",
        "for (int span = 0; span < 1; span++)",
    ),
    ("few_rows_tiles", "(j / 2 + j % 2 * 4) & 15", "j & 15"),
    (
        "few_rows_tiles",
        "k < depth ? *(const Four*)(w + row",
        "true ? *(const Four*)(w + row",
    ),
];

const ON_HOPPER: &[Planted] = &[
    (
        "product_hopper",
        "        await(right_full + s, step / RIGHTS % 2);\n",
        "",
    ),
    ("product_hopper", "        group_wait<1>();\n", ""),
    ("product_hopper", "turn * 1024", "turn * 128"),
    ("product_hopper", "half * 64 * ROW", "half * 32 * ROW"),
    ("product_hopper", "    named_barrier<1, COPIER>();\n", ""),
    (
        "product_hopper",
        "step % side * side + step / side % side",
        "step % (side * side)",
    ),
    (
        "product_hopper",
        "x0 - window.left + righter",
        "x0 - window.left + lower",
    ),
    (
        "product_hopper",
        "step / RIGHTS % 2 ^ 1",
        "step / RIGHTS % 2",
    ),
    (
        "product_hopper",
        "if (turn == 0) arrive(left_empty + (tile - 1) % LEFTS);",
        "",
    ),
    ("product_hopper", "step + k > 0", "step > 0"),
    ("product_hopper", "inside / size * N", "inside / GROUP * N"),
    (
        "product_hopper",
        "    warp_barrier();\n    if (!ahead)",
        "    if (!ahead)",
    ),
    ("product_hopper", "if (step < ahead) continue;\n", ""),
    (
        "product_hopper",
        "fetch_right(rights + s * RIGHT, right_full + s, s);",
        "fetch_right(rights + s * RIGHT, right_full + s, s + 1);",
    ),
    (
        "product_hopper",
        "column / parts.width * ((long long)parts.width * parts.rows) + column % parts.width",
        "column",
    ),
    ("product_hopper", "local(pass) < 16 ?", "local(pass) < 15 ?"),
    (
        "product_hopper",
        "if (!EARLY || pass) read(pass);",
        "if (!EARLY) read(pass);",
    ),
    (
        "finish_hopper.cuh",
        "s.gate + (long long)group * columns + column",
        "s.gate + column",
    ),
    ("finish_hopper.cuh", "phase < 2 ? low[", "phase % 2 ? low["),
];

const ELSEWHERE: &[Planted] = &[
    (
        "few_rows",
        "if (j < count) sums[r]",
        "if (j < count - 1) sums[r]",
    ),
    ("copy", "(dx + phase % 2 + 1) / 2", "(dx + 1) / 2"),
    ("copy", "from += at * s.from[d];", "from += at * s.to[d];"),
    (
        "norm",
        "(v[j] - mean) * (v[j] - mean)",
        "(v[j] - mean) * v[j] * 0.99f",
    ),
    (
        "norm",
        "row.sum(sum, rooms + THREADS / 32) / channels + eps",
        "sum / channels + eps",
    ),
    ("norm", "rooms + THREADS / 32", "rooms"),
    (
        "norm",
        "    barrier();\n    const int first",
        "    const int first",
    ),
    ("norm", "second ? weight1 : weight0", "weight0"),
    (
        "norm",
        "(v[i][j] - mean) * factor * (1.0f + scales[i][j])",
        "v[i][j] * factor * (1.0f + scales[i][j])",
    ),
    ("norm", "i == 1 ? values[1][j]", "i == 1 ? values[2][j]"),
    (
        "attention_wide",
        "        wait<1>();\n        barrier();\n        float mine",
        "        wait<1>();\n        float mine",
    ),
    (
        "attention_wide",
        "        wait<1>();\n        barrier();\n#pragma",
        "        wait<2>();\n        barrier();\n#pragma",
    ),
    (
        "attention_wide",
        "        barrier();\n        if (k0 + KEYS < end) load(ks",
        "        if (k0 + KEYS < end) load(ks",
    ),
    (
        "attention_wide",
        "weights[i][half + 2]",
        "weights[i][half * 2]",
    ),
    ("attention_wide", "            total[half] *= factor;\n", ""),
    (
        "attention_wide",
        "s.softcap * hyperbolic_tangent",
        "hyperbolic_tangent",
    ),
    ("ends", "tap % 3) * PITCH_OUT", "tap / 3) * PITCH_OUT"),
    ("ends", "l % 4 * 8 + s * 4", "l % 4 * 8 + s * 2"),
    (
        "ends",
        "    barrier();\n    for (int i = threadIdx.x; i < WIDTH * ROWS_OUT",
        "    for (int i = threadIdx.x; i < WIDTH * ROWS_OUT",
    ),
    ("ends", "l / 8 * 8 + 2 * n", "l / 8 * 4 + 2 * n"),
    ("ends", "pixel[k[1]].bits << 16", "pixel[k[0]].bits << 16"),
    (
        "norm",
        "row / tokens * channels",
        "row / tokens / tokens * channels",
    ),
    (
        "depthwise",
        "const int left = pixel % m.width",
        "const int left = pixel % m.height",
    ),
    ("depthwise", "silu(sums[1][r][u][0])", "sums[1][r][u][0]"),
    ("depthwise", "(u + s) % side", "(u + s + 1) % side"),
    ("depthwise", "done >= first", "done > first"),
    ("depthwise", "end + half ? inside", "end ? inside"),
    (
        "linear_attention",
        "highs(u[2], u[3])}",
        "highs(u[3], u[2])}",
    ),
    (
        "linear_attention",
        "8 * t + 4 * step + 2 * half",
        "8 * t + 4 * half + 2 * step",
    ),
    (
        "linear_attention",
        "    barrier();\n    float* to = states",
        "    float* to = states",
    ),
    (
        "linear_attention",
        "weights[2 * half] + eps",
        "weights[half] + eps",
    ),
    (
        "linear_attention",
        "weight += q * s[h.dim * h.dim + c]",
        "weight += s[h.dim * h.dim + c]",
    ),
    (
        "linear_attention",
        "for (int r = 0; r < runs; r++)",
        "for (int r = 0; r < 1; r++)",
    ),
    (
        "attention_tiles",
        "right[0], right[1]",
        "right[1], right[0]",
    ),
    ("attention_tiles", "        total[half] *= factor;", ""),
    (
        "attention_tiles",
        "i * 16 + lane % 16) * pitch",
        "i * 16 + lane % 8) * pitch",
    ),
    (
        "attention_tiles",
        "lane % 4 * 2 + j;\n                        bool",
        "lane % 4 + 4 * j;\n                        bool",
    ),
    (
        "attention_tiles",
        "            wait<0>();\n            barrier();",
        "            wait<0>();",
    ),
    (
        "attention_tiles",
        "fetch(rooms + (turn ^ 1) * 2",
        "fetch(rooms + turn * 2",
    ),
    ("attention_tiles", "else score = -HIDDEN;", ""),
    (
        "attention",
        "key > reach - s.window",
        "key >= reach - s.window",
    ),
    (
        "attention",
        "total[e] * factor + sum_of_warp(weight)",
        "total[e] + sum_of_warp(weight)",
    ),
    (
        "attention",
        "    for (int k0 = begin; k0 < end; k0 += KEYS) {\n        barrier();",
        "    for (int k0 = begin; k0 < end; k0 += KEYS) {",
    ),
    (
        "attention",
        "head / (s.heads / s.groups)",
        "head % s.groups",
    ),
    ("attention", "key < (int)ends[row]", "key <= (int)ends[row]"),
    (
        "attention",
        "a[j] * c[j] - b[j] * s[j]",
        "a[j] * c[j] + b[j] * s[j]",
    ),
    (
        "attention",
        "passes = chunk >= turned",
        "passes = chunk > turned",
    ),
    ("attention_tiles", "key < last &&", "key <= last &&"),
    (
        "attention_tiles",
        "begin = blockIdx.z * parts.span;",
        "begin = blockIdx.z * parts.span + 1;",
    ),
    (
        "attention_tiles",
        "parts.marks[at * 2 + 1] = all;",
        "parts.marks[at * 2 + 1] = total[half];",
    ),
    ("cache", "total += mark[1] * factor;", "total += mark[1];"),
    (
        "cache",
        "const float factor = power_of_two(mark[0] - largest);",
        "const float factor = 1.0f;",
    ),
    (
        "cache",
        "if (slot >= (unsigned)capacity) return;",
        "if (slot > (unsigned)capacity) return;",
    ),
    (
        "cache",
        "places[other] < places[thread]",
        "places[other] > places[thread]",
    ),
    (
        "cache",
        "kind(token) & 2) continue;",
        "kind(token) & 1) continue;",
    ),
    ("cache", "if (!(bars & 1) &&", "if (!(bars & 2) &&"),
    (
        "cache",
        "        barrier();\n        if (thread < half) sums",
        "        if (thread < half) sums",
    ),
    (
        "pointwise",
        "get8(z, from, second)",
        "get8(x, from, second)",
    ),
    ("copy", "width + column, v)", "width, v)"),
    (
        "pointwise",
        "right += at * o.right[d];",
        "right += at * o.left[d];",
    ),
];

/// The kernel file that shows a bug of a header.
fn shown_by(file: &str) -> &str {
    if file == "finish_hopper.cuh" {
        "product_hopper"
    } else if file.ends_with(".cuh") {
        "product"
    } else {
        file
    }
}

/// Builds a kernel file with another text and says whether a case that needs it fails; the first one is enough.
fn fails(number: usize, changed: Option<(&str, &str, &str)>, file: &str) -> bool {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let room = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(crates.join("cuda/kernels")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, room.path().join(path.file_name().unwrap())).unwrap();
    }
    if let Some((name, from, to)) = changed {
        let name = if name.ends_with(".cuh") {
            name.to_owned()
        } else {
            format!("{name}.cu")
        };
        let path = room.path().join(&name);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{name} has no {from:?}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
    }
    let source = room.path().join("one.cpp");
    let text = format!("#include \"{file}.cu\"\n#include \"launch.hpp\"\n");
    std::fs::write(&source, text).unwrap();
    let built = room.path().join(format!("planted{number}.so"));
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let status = Command::new(compiler)
        .args([
            "-std=c++17",
            "-O1",
            "-shared",
            "-fPIC",
            "-DEMULATED",
            "-U_FORTIFY_SOURCE",
            "-fvisibility=hidden",
            "-fno-gnu-unique",
            "-w",
            "-I",
        ])
        .arg(crates.join("cuda-emulated/cpp"))
        .arg("-I")
        .arg(room.path())
        .arg(&source)
        .arg("-o")
        .arg(&built)
        .status()
        .expect("a C++ compiler");
    assert!(status.success(), "{changed:?} does not compile");
    // SAFETY: it holds the emulator and kernels only, and nothing of it is used after this function.
    let library = unsafe { Library::new(&built) }.unwrap();
    // SAFETY: the type is that of the emulator's door.
    let door: Door = unsafe { *library.get(b"brisk_emulated_launch\0").unwrap() };
    let settings: &[_] = match file {
        "product_hopper" => &[(Precision::Half, 0, (9, 0)), (Precision::Half, 5, (9, 0))],
        _ => &[
            (Precision::Half, 0, (8, 0)),
            (Precision::Half, 5, (8, 0)),
            (Precision::Single, 6, (8, 0)),
        ],
    };
    settings.iter().any(|&(precision, seed, capability)| {
        let device = device_over(door, precision, seed, capability);
        let cases = suite::cases();
        let mut cases = cases.iter().filter(|case| case.files.contains(&file));
        cases.any(|case| {
            let outcome = case.run(&device, Size::Small, false);
            !outcome.is_ok_and(|outcome| outcome.passes(precision))
        })
    })
}

/// Those that no case failed for.
fn missed(planted: &[Planted]) -> Vec<String> {
    let missed = planted.iter().enumerate().filter(|(number, planted)| {
        let (file, ..) = **planted;
        !fails(*number, Some(**planted), shown_by(file))
    });
    missed
        .map(|(_, (file, from, to))| format!("{file}: {from:?} as {to:?}"))
        .collect()
}

#[test]
fn every_bug_planted_into_products_is_found() {
    if brisk_cuda_emulated::is_missing() {
        return;
    }
    assert_eq!(missed(IN_PRODUCTS), [""; 0]);
}

#[test]
fn every_bug_planted_into_layers_of_few_bits_is_found() {
    if brisk_cuda_emulated::is_missing() {
        return;
    }
    assert_eq!(missed(IN_FEW_BITS), [""; 0]);
}

#[test]
fn every_bug_planted_into_products_on_hopper_is_found() {
    if brisk_cuda_emulated::is_missing() {
        return;
    }
    assert_eq!(missed(ON_HOPPER), [""; 0]);
}

#[test]
fn every_bug_planted_elsewhere_is_found() {
    if brisk_cuda_emulated::is_missing() {
        return;
    }
    assert_eq!(missed(ELSEWHERE), [""; 0]);
}

#[test]
fn kernels_without_a_bug_pass() {
    if brisk_cuda_emulated::is_missing() {
        return;
    }
    assert!(!fails(1000, None, "product"));
}
