//! Layers one by one against PyTorch (`reference/layers.py`).

use brisk_nn::{
    ClipPadding, Codebook, Conv2d, Conv3d, Conv3dOptions, ConvOptions, ConvTranspose2d,
    ConvTransposeOptions, GroupNorm, LayerNorm, Tensor, Weights, ops,
};
use brisk_store::{MappedSource, Slice, TensorSource, open_weights};
use std::path::Path;
use std::sync::Arc;

const TOLERANCE: f32 = 2e-5;

fn file(name: &str) -> Arc<dyn TensorSource> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/layers");
    open_weights(&folder.join(name)).unwrap()
}

fn golden() -> Arc<dyn TensorSource> {
    file("golden.safetensors")
}

fn get_from(source: &dyn TensorSource, name: &str) -> Tensor {
    let view = source.view(name).unwrap();
    Tensor::from_view(&view.unwrap_or_else(|| panic!("no {name}"))).unwrap()
}

fn get(name: &str) -> Tensor {
    get_from(&*golden(), name)
}

/// `CASE.weight` and `CASE.bias`, frozen or as variables.
fn parameters(case: &str) -> [Weights; 2] {
    let source = golden();
    let kept = ["weight", "bias"].map(|part| (part.to_owned(), format!("{case}.{part}")));
    let slices = kept
        .into_iter()
        .map(|(part, name)| (part, Slice::whole(name)));
    let source = Arc::new(MappedSource::new(source, slices.collect()).unwrap());
    [
        Weights::from_source(source.clone()),
        Weights::trainable(Some(source), 0),
    ]
}

/// Channels to the end, or back to the front.
fn last(x: &Tensor) -> Tensor {
    let rank = x.rank();
    let order: Vec<usize> = [0].into_iter().chain(2..rank).chain([1]).collect();
    x.permute(order).unwrap().contiguous().unwrap()
}

fn first(x: &Tensor) -> Tensor {
    let rank = x.rank();
    let order: Vec<usize> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
    x.permute(order).unwrap().contiguous().unwrap()
}

#[track_caller]
fn close(found: &Tensor, name: &str) {
    close_to(found, &get(name), name);
}

#[track_caller]
fn close_to(found: &Tensor, wanted: &Tensor, name: &str) {
    assert_eq!(found.dims(), wanted.dims(), "{name}");
    let distance = (found - wanted).unwrap().abs().unwrap().max_all().unwrap();
    let distance = distance.to_scalar::<f32>().unwrap();
    assert!(distance < TOLERANCE, "{name}: off by {distance}");
}

/// The gradient of a weighted sum of what `run` makes of a variable, against differences.
fn gradient_fits(x: &Tensor, run: &dyn Fn(&Tensor) -> Tensor) {
    let values: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
    let loss = |values: Vec<f32>| {
        let variable = candle_core::Var::from_vec(values, x.dims(), &candle_core::Device::Cpu);
        let variable = variable.unwrap();
        let y = run(&variable.as_tensor().into());
        let weights = (0..y.elem_count())
            .map(|i| (i as f32 * 0.71).sin())
            .collect();
        let weights = Tensor::from_vec(weights, y.dims()).unwrap();
        ((y * weights).unwrap().sum_all().unwrap(), variable)
    };
    let (value, variable) = loss(values.clone());
    let store = value.host().unwrap().backward().unwrap();
    let gradient = store.get(variable.as_tensor()).expect("a gradient");
    let gradient = gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let step = 1e-2;
    for index in [0, values.len() / 3, values.len() - 1] {
        let at = |by: f32| {
            let mut moved = values.clone();
            moved[index] += by;
            loss(moved).0.to_scalar::<f32>().unwrap()
        };
        let slope = (at(step) - at(-step)) / (2.0 * step);
        let off = (slope - gradient[index]).abs();
        assert!(
            off < 0.02 * slope.abs().max(1.0),
            "{index}: {slope} {}",
            gradient[index]
        );
    }
}

#[test]
fn resized_maps_agree() {
    let source = file("resize.safetensors");
    for case in ["down", "up", "one", "same"] {
        let x = last(&get_from(&*source, &format!("{case}.x")));
        for (mode, resize) in [
            ("area", ops::resize_area as fn(&Tensor, [usize; 2]) -> _),
            ("bicubic", ops::resize_bicubic),
        ] {
            let name = format!("{case}.{mode}");
            let wanted = get_from(&*source, &name);
            let size = [wanted.dims()[2], wanted.dims()[3]];
            close_to(&first(&resize(&x, size).unwrap()), &wanted, &name);
            gradient_fits(&x, &|x| resize(x, size).unwrap());
        }
    }
}

#[test]
fn norms_agree() {
    for weights in parameters("layer_norm") {
        let norm = LayerNorm::load(&weights, 12, 1e-6, true).unwrap();
        let x = get("layer_norm.x");
        close(&norm.forward(&x).unwrap(), "layer_norm.y");
        gradient_fits(&x, &|x| norm.forward(x).unwrap());
    }
    let plain = LayerNorm::plain(2, 0.0).unwrap();
    let y = plain
        .forward(&Tensor::new(&[[1f32, 3.0]]).unwrap())
        .unwrap();
    assert_eq!(y.to_vec2::<f32>().unwrap(), [[-1.0, 1.0]]);
    for (case, groups, eps) in [("group_norm", 4, 1e-6), ("group_norm_time", 2, 1e-5)] {
        for weights in parameters(case) {
            let norm = GroupNorm::load(&weights, groups, 8, eps).unwrap();
            let x = last(&get(&format!("{case}.x")));
            close(&first(&norm.forward(&x).unwrap()), &format!("{case}.y"));
            gradient_fits(&x, &|x| norm.forward(x).unwrap());
        }
    }
    let [weights, _] = parameters("group_norm");
    let odd = GroupNorm::load(&weights, 3, 8, 1e-6).unwrap();
    assert!(odd.forward(&last(&get("group_norm.x"))).is_err());
}

#[test]
fn gelu_by_the_error_function_agrees() {
    let x = get("gelu.x");
    close(&ops::gelu_erf(&x).unwrap(), "gelu.y");
    gradient_fits(&x, &|x| ops::gelu_erf(x).unwrap());
    let tanh = ops::gelu_tanh(&x).unwrap() - get("gelu.y");
    let apart = tanh.unwrap().abs().unwrap().max_all().unwrap();
    assert!(
        apart.to_scalar::<f32>().unwrap() > 1e-4,
        "the golden tells them apart"
    );
}

#[test]
fn pools_agree() {
    let x = last(&get("pool.x"));
    let cases = [
        ("pool_2", [2, 2], [2, 2], [0, 0]),
        ("pool_3_same", [3, 3], [1, 1], [1, 1]),
        ("pool_rows", [2, 1], [2, 1], [0, 0]),
    ];
    for (case, kernel, stride, padding) in cases {
        let run = |x: &Tensor| ops::max_pool2d(x, kernel, stride, padding).unwrap();
        close(&first(&run(&x)), &format!("{case}.y"));
        gradient_fits(&x, &run);
    }
    assert!(ops::max_pool2d(&x, [8, 1], [1, 1], [0, 0]).is_err());
    assert!(ops::max_pool2d(&x, [2, 2], [0, 1], [0, 0]).is_err());
    assert!(ops::max_pool2d(&x, [2, 2], [1, 1], [2, 0]).is_err());
}

#[test]
fn dilated_convolutions_agree() {
    for (case, dilation) in [("dilated_6", 6), ("dilated_2", 2)] {
        let options = ConvOptions {
            dilation,
            padding: dilation,
            ..ConvOptions::SAME_3X3
        };
        let x = last(&get(&format!("{case}.x")));
        for weights in parameters(case) {
            let conv = Conv2d::load(&weights, 5, 6, options).unwrap();
            close(&first(&conv.forward(&x).unwrap()), &format!("{case}.y"));
            let steps = ops::Epilogue::activation(ops::Activation::Relu);
            let with = conv.forward_with(&x, &steps).unwrap();
            let wanted = ops::relu(&conv.forward(&x).unwrap()).unwrap();
            let same = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(same(&with), same(&wanted));
            gradient_fits(&x, &|x| conv.forward(x).unwrap());
        }
    }
    let [weights, _] = parameters("dilated_2");
    let refused = ConvOptions {
        dilation: 2,
        ..ConvOptions::SAME_3X3
    };
    assert!(Conv2d::load(&weights, 5, 6, refused).is_err());
}

/// What frozen networks give to what they judge: the same as if they were trained.
#[test]
fn gradients_and_tangents_pass_through_packed_convolutions() {
    let made_up = |count: usize, by: f32| -> Vec<f32> {
        (0..count).map(|i| (i as f32 * by).sin() / 4.0).collect()
    };
    // Few channels, a stride, a kernel of one, and Winograd's transforms.
    for (channels, kernel, stride) in [(6, 3, 1), (6, 3, 2), (7, 1, 1), (40, 3, 1)] {
        let options = ConvOptions {
            kernel,
            stride,
            padding: kernel / 2,
            ..ConvOptions::SAME_3X3
        };
        let shape = (channels, channels, kernel, kernel);
        let weight = made_up(channels * channels * kernel * kernel, 0.37);
        let variable = candle_core::Var::from_vec(weight, shape, &candle_core::Device::Cpu);
        let variable: Tensor = variable.unwrap().as_tensor().into();
        let bias = Tensor::from_vec(made_up(channels, 0.9), channels).unwrap();
        let frozen = Conv2d::new(variable.detach(), Some(bias.clone()), options).unwrap();
        let trained = Conv2d::new(variable, Some(bias), options).unwrap();
        let x = Tensor::from_vec(made_up(2 * 9 * 10 * channels, 0.53), (2, 9, 10, channels));
        let x = x.unwrap();
        let gradient = |conv: &Conv2d| {
            let variable = candle_core::Var::from_tensor(&x.host().unwrap()).unwrap();
            let y = conv.forward(&variable.as_tensor().into()).unwrap();
            let loss = y.sqr().unwrap().sum_all().unwrap();
            let store = loss.host().unwrap().backward().unwrap();
            let found = store.get(variable.as_tensor()).expect("a gradient").clone();
            Tensor::from(found)
        };
        // Winograd's transforms round a little more, the result and then its gradient.
        let (found, wanted) = (gradient(&frozen), gradient(&trained));
        let largest = |x: Tensor| -> f32 {
            let most = x.abs().unwrap().max_all().unwrap();
            most.to_scalar().unwrap()
        };
        let off = largest((found - &wanted).unwrap()) / largest(wanted);
        assert!(off < 1e-4, "{channels} {kernel} {stride}: {off}");
        let rate = x.affine(-0.3, 0.1).unwrap();
        let dual = x.with_tangent(&rate).unwrap();
        let tangent = |conv: &Conv2d| conv.forward(&dual).unwrap().tangent().unwrap();
        close_to(&tangent(&frozen), &tangent(&trained), "tangent");
    }
}

#[test]
fn transposed_convolutions_agree() {
    for (case, kernel, padding, output_padding) in [
        ("transposed_2", 2, 0, 0),
        ("transposed_4", 4, 1, 0),
        ("transposed_3", 3, 1, 1),
    ] {
        let options = ConvTransposeOptions {
            kernel,
            stride: 2,
            padding,
            output_padding,
            bias: true,
        };
        let x = last(&get(&format!("{case}.x")));
        for weights in parameters(case) {
            let conv = ConvTranspose2d::load(&weights, 5, 6, options).unwrap();
            close(&first(&conv.forward(&x).unwrap()), &format!("{case}.y"));
            gradient_fits(&x, &|x| conv.forward(x).unwrap());
            if weights.is_trainable() {
                // A variable that changes changes the layer.
                let before = conv.forward(&x).unwrap();
                let (_, weight) = &weights.variables()[1];
                weight.set(&(weight.as_tensor() * 2.0).unwrap()).unwrap();
                let moved = (conv.forward(&x).unwrap() - before).unwrap().abs().unwrap();
                assert!(moved.max_all().unwrap().to_scalar::<f32>().unwrap() > 0.1);
            }
        }
        let [weights, _] = parameters(case);
        let wrong = ConvTransposeOptions {
            output_padding: 2,
            ..options
        };
        assert!(ConvTranspose2d::load(&weights, 5, 6, wrong).is_err());
    }
}

#[test]
fn convolutions_over_clips_agree() {
    let x = last(&get("time.x"));
    for (case, stride, padding) in [
        ("time_same", [1, 1], ClipPadding::Zeros),
        ("time_causal", [1, 1], ClipPadding::Causal),
        ("time_causal_stride", [2, 2], ClipPadding::Causal),
        ("time_causal_space", [1, 2], ClipPadding::Causal),
    ] {
        let options = Conv3dOptions {
            kernel: 3,
            stride,
            padding,
            bias: true,
        };
        for weights in parameters("time") {
            let conv = Conv3d::load(&weights, 4, 3, options).unwrap();
            close(&first(&conv.forward(&x).unwrap()), &format!("{case}.y"));
            gradient_fits(&x, &|x| conv.forward(x).unwrap());
        }
    }
    // A clip of one frame, which all taps see.
    let alone = x.narrow(1, 0, 1).unwrap();
    let [of_frozen, of_trained] = parameters("time").map(|weights| {
        let options = Conv3dOptions {
            kernel: 3,
            stride: [1, 1],
            padding: ClipPadding::Causal,
            bias: true,
        };
        let conv = Conv3d::load(&weights, 4, 3, options).unwrap();
        gradient_fits(&alone, &|x| conv.forward(x).unwrap());
        conv.forward(&alone).unwrap()
    });
    let apart = (of_frozen - of_trained).unwrap().abs().unwrap();
    assert!(apart.max_all().unwrap().to_scalar::<f32>().unwrap() < 1e-5);
    let [weights, _] = parameters("time");
    let causal = Conv3dOptions {
        kernel: 3,
        stride: [1, 1],
        padding: ClipPadding::Causal,
        bias: true,
    };
    let conv = Conv3d::load(&weights, 4, 3, causal).unwrap();
    let start = conv.forward(&x.narrow(1, 0, 2).unwrap()).unwrap();
    let whole = conv.forward(&x).unwrap().narrow(1, 0, 2).unwrap();
    let apart = (start - whole).unwrap().abs().unwrap().max_all().unwrap();
    assert!(
        apart.to_scalar::<f32>().unwrap() < 1e-6,
        "no frame sees a later one"
    );
    assert!(
        conv.forward(&x.narrow(1, 0, 1).unwrap().squeeze(1).unwrap())
            .is_err()
    );
}

#[test]
fn attentions_with_a_bias_and_with_an_offset_agree() {
    let [q, k, v] = ["q", "k", "v"].map(|name| get(&format!("attention.{name}")));
    let bias = get("bias_heads.bias").unsqueeze(0).unwrap();
    let run = |q: &Tensor| ops::biased_attention(q, &k, &v, 3, 0.5, &bias).unwrap();
    close(&run(&q), "bias_heads.y");
    gradient_fits(&q, &run);
    let bias = get("bias_rows.bias");
    let y = ops::biased_attention(&q, &k, &v, 3, 0.5, &bias).unwrap();
    close(&y, "bias_rows.y");
    assert!(ops::biased_attention(&q, &k, &v, 5, 0.5, &bias).is_err());
    assert!(ops::biased_attention(&q, &k, &q, 3, 0.5, &bias).is_err());
    let options = ops::AttentionOptions {
        causal: Some(4),
        ..ops::AttentionOptions::new(3, 4)
    };
    close(
        &ops::attention(&q, &k, &v, &options).unwrap(),
        "causal_offset_4.y",
    );
}

#[test]
fn nearest_codewords_agree() {
    let book = Codebook::new(get("codes.table")).unwrap();
    let codes = book.nearest(&get("codes.x")).unwrap();
    let wanted: Vec<i64> = get("codes.ids").to_vec1().unwrap();
    assert_eq!(
        codes.iter().map(|c| i64::from(*c)).collect::<Vec<_>>(),
        wanted
    );
    let rows = book.lookup(&codes[..2]).unwrap();
    assert_eq!(rows.dims(), [2, 8]);
    assert_eq!(
        book.nearest(&rows).unwrap(),
        codes[..2],
        "a codeword is its own nearest"
    );
    // Of two at one distance, the first.
    let twice = Codebook::new(Tensor::new(&[[1f32, 0.0], [3.0, 0.0], [1.0, 0.0]]).unwrap());
    let near = twice
        .unwrap()
        .nearest(&Tensor::new(&[[2f32, 0.0], [0.9, 5.0]]).unwrap());
    assert_eq!(near.unwrap(), [0, 0]);
    assert!(book.lookup(&[33]).is_err());
    let broken = Tensor::full(f32::NAN, (1, 8)).unwrap();
    assert!(book.nearest(&broken).is_err());
}
