//! The few names a checkpoint may use. Each stands for data; nothing is ever looked up or run.

use crate::Dtype;

/// What PyTorch's names stand for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    Size,
    Device,
    RebuildTensor,
    RebuildParameter,
    /// A storage class. `None`: an element type that brisk does not read.
    Storage(Option<Dtype>),
    /// A `torch.dtype`; only ever a leaf that is not a tensor.
    ElementType,
}

/// The meaning of `module.name`; an error names what is not on the list.
pub(super) fn find_global(module: &str, name: &str) -> Result<Global, String> {
    Ok(match (module, name) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("torch", "Size") => Global::Size,
        ("torch", "device") => Global::Device,
        ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
        ("torch", "DoubleStorage") => Global::Storage(Some(Dtype::F64)),
        ("torch", "FloatStorage") => Global::Storage(Some(Dtype::F32)),
        ("torch", "HalfStorage") => Global::Storage(Some(Dtype::F16)),
        ("torch", "BFloat16Storage") => Global::Storage(Some(Dtype::BF16)),
        ("torch", "LongStorage") => Global::Storage(Some(Dtype::I64)),
        ("torch", "IntStorage") => Global::Storage(Some(Dtype::I32)),
        ("torch", "ShortStorage") => Global::Storage(Some(Dtype::I16)),
        ("torch", "CharStorage") => Global::Storage(Some(Dtype::I8)),
        ("torch", "ByteStorage") => Global::Storage(Some(Dtype::U8)),
        ("torch", "BoolStorage") => Global::Storage(Some(Dtype::Bool)),
        ("torch", "ComplexFloatStorage" | "ComplexDoubleStorage") => Global::Storage(None),
        (
            "torch",
            "float64" | "double" | "float32" | "float" | "float16" | "half" | "bfloat16" | "int64"
            | "long" | "int32" | "int" | "int16" | "short" | "int8" | "uint8" | "bool",
        ) => Global::ElementType,
        _ => {
            return Err(format!(
                "the file asks for {}.{}, which is not tensor data; brisk never runs code from a \
                 checkpoint. Re-save only the tensors (torch.save of a state dict) or convert to \
                 safetensors",
                clip(module),
                clip(name)
            ));
        }
    })
}

/// Names from the file in messages, kept short and printable.
pub(super) fn clip(text: &str) -> String {
    text.chars()
        .take(80)
        .flat_map(char::escape_default)
        .collect()
}
