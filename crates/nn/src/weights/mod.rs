//! Named parameters: read from files for inference, held as variables for training, or made up
//! for timing.

mod builder;
mod headers;
mod init;
mod ledger;
mod made_up;
mod stored;
mod variables;

pub use builder::{InputWatcher, WeightsBuilder};
pub use headers::NamedShape;
pub use init::Init;
pub use made_up::Storage;

use crate::checkpoint::checkpoint;
use crate::error::{Error, Result};
use crate::lora::Adapters;
use crate::low_bit::LowBitSource;
use crate::ops::{self, PackedInt4};
use crate::quantized::{Quantization, QuantizedWeights};
use crate::tensor::{DType, Location, Tensor};
use brisk_cuda::Precision;
use brisk_kernels::int4::{Activations, Int4Weight};
use brisk_kernels::quantized::QuantizedMatrix;
use brisk_store::TensorSource;
use candle_core::Var;
use headers::Headers;
use ledger::Ledger;
use std::fmt::Display;
use std::sync::Arc;
use stored::Stored;
use variables::Variables;

/// A path prefix over one set of named parameters. Cheap to clone.
///
/// [`WeightsBuilder`] says where they come from and what is added to them. Loading collects every
/// problem (missing, mis-shaped, non-finite tensors) instead of stopping at the first;
/// [`Weights::finish`] reports them together and must be called once the model has been built.
#[derive(Clone)]
pub struct Weights {
    shared: Arc<Shared>,
    prefix: String,
    /// Whether layers stay as they are stored, whatever the others do.
    as_stored: bool,
}

struct Shared {
    origin: Origin,
    adapters: Adapters,
    low_bit: Option<(Arc<dyn LowBitSource>, Activations)>,
    watcher: Option<InputWatcher>,
    quantization: Quantization,
    kept: Option<Arc<QuantizedWeights>>,
    exact: bool,
    /// Where parameters are put.
    location: Location,
    /// Only names and shapes are looked at.
    headers: Option<Headers>,
    ledger: Ledger,
}

/// Where parameters come from.
enum Origin {
    File(Arc<dyn TensorSource>),
    /// Made up when they are asked for, from a seed.
    Random(u64, Storage),
    Variables {
        source: Option<Arc<dyn TensorSource>>,
        seed: u64,
        made: Variables,
        /// Parts whose parameters an optimiser changes; all where none is named.
        trained: Vec<String>,
    },
}

/// Whether the parameter `path` is that of `part` or of what is below it: `decoder.conv_out.weight` of `decoder.conv_out`.
pub fn is_of_part(path: &str, part: &str) -> bool {
    let rest = path.strip_prefix(part);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether `path` is of one of the parts; without parts it is.
fn is_trained(parts: &[String], path: &str) -> bool {
    parts.is_empty() || parts.iter().any(|part| is_of_part(path, part))
}

impl Origin {
    fn source(&self) -> Option<&dyn TensorSource> {
        match self {
            Self::File(source) => Some(&**source),
            Self::Random(..) => None,
            Self::Variables { source, .. } => source.as_deref(),
        }
    }
}

/// Stands for a layer's weight where that is held in few bits.
const LOW_BIT: &str = "qweight";

impl Weights {
    /// Frozen parameters from a file, with nothing added.
    pub fn from_source(source: Arc<dyn TensorSource>) -> Self {
        Self::over(Shared::plain(Origin::File(source)))
    }

    /// As [`WeightsBuilder::random`], with nothing added.
    pub fn random(seed: u64, storage: Storage) -> Self {
        Self::over(Shared::plain(Origin::Random(seed, storage)))
    }

    /// As [`WeightsBuilder::trainable`], with nothing added.
    pub fn trainable(source: Option<Arc<dyn TensorSource>>, seed: u64) -> Self {
        Self::over(Shared::plain(Origin::Variables {
            source,
            seed,
            made: Variables::default(),
            trained: Vec::new(),
        }))
    }

    fn over(shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
            prefix: String::new(),
            as_stored: false,
        }
    }

    /// The linear layers called `names` below this path (the path itself where the name is empty), which
    /// share their input, where they are held in few bits as one. A LoRA joins their branch; as it gives
    /// each layer factors of its own, layers under one come each for itself.
    pub(crate) fn low_bit(
        &self,
        names: &[&str],
        inputs: usize,
        outputs: &[usize],
    ) -> Result<Option<Vec<PackedInt4>>> {
        let Some((source, activations)) = &self.shared.low_bit else {
            return Ok(None);
        };
        if self.shared.headers.is_some() {
            return Ok(None);
        }
        let paths = names.iter().map(|name| match *name {
            "" => self.prefix.clone(),
            name => self.path(name),
        });
        let paths: Vec<String> = paths.collect();
        checkpoint()?;
        let Some(weight) = source.layers(&paths, inputs, outputs)? else {
            return Ok(None);
        };
        if !weight.fits() || weight.inputs != inputs || weight.outputs != outputs {
            return Err(Error::Config(format!(
                "layer {}: its 4-bit parts are not those of a layer of {outputs:?}x{inputs}",
                paths.join(", ")
            )));
        }
        let adapters = &self.shared.adapters;
        for path in &paths {
            self.shared.ledger.used(&format!("{path}.{LOW_BIT}"));
        }
        let location = &self.shared.location;
        let packed = |weight: &Int4Weight| PackedInt4::at(weight, *activations, location);
        if !paths.iter().any(|path| adapters.change_layer(path)) {
            return Ok(Some(vec![packed(&weight)?]));
        }
        let each = weight.split().into_iter().zip(&paths);
        let each = each.map(|(mut weight, path)| {
            adapters.apply_low_bit(path, &mut weight)?;
            packed(&weight)
        });
        each.collect::<Result<_>>().map(Some)
    }

    /// What watches the layer at this path, and the path.
    pub(crate) fn watcher(&self) -> Option<(InputWatcher, String)> {
        let watcher = self.shared.watcher.as_ref()?;
        Some((watcher.clone(), self.prefix.clone()))
    }

    /// The matrix `[outputs, inputs]` of shape `shape`, quantized; none where it is to be kept as it
    /// is stored. `read` gives the stored one, in ordinary memory.
    pub(crate) fn quantize(
        &self,
        name: &str,
        shape: &[usize],
        read: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Option<Arc<QuantizedMatrix>>> {
        let quantization = self.shared.quantization;
        let Some(bits) = quantization.bits().filter(|_| !self.as_stored) else {
            return Ok(None);
        };
        checkpoint()?;
        let path = self.path(name);
        let size = (shape[0], shape[1]);
        let kept = self.shared.kept.as_ref();
        let fits = self.shape(name).is_some_and(|found| found == shape);
        if let (Some(kept), true) = (kept, fits)
            && let Some(matrix) = kept.earlier(&path, size, bits)?
        {
            self.shared.ledger.used(&path);
            return Ok(Some(Arc::new(matrix)));
        }
        let matrix = Arc::new(ops::quantize(&read()?.reshape(size)?, bits)?);
        if let Some(kept) = kept {
            kept.keep(path, &matrix);
        }
        Ok(Some(matrix))
    }

    /// Whether [`WeightsBuilder::exact`] was asked for.
    pub fn is_exact(&self) -> bool {
        self.shared.exact
    }

    /// Where parameters are put, and so what is made of them.
    pub fn location(&self) -> &Location {
        &self.shared.location
    }

    /// Whether parameters are variables that an optimiser will change.
    pub fn is_trainable(&self) -> bool {
        matches!(self.shared.origin, Origin::Variables { .. })
    }

    /// The parameters below `part`, as in `weights.pp("blocks").pp(3)`.
    pub fn pp(&self, part: impl Display) -> Self {
        Self {
            prefix: self.path(&part.to_string()),
            ..self.clone()
        }
    }

    /// The same parameters, of which no layer is quantized as it is loaded.
    pub fn as_stored(&self) -> Self {
        Self {
            as_stored: true,
            ..self.clone()
        }
    }

    fn path(&self, name: &str) -> String {
        if self.prefix.is_empty() {
            name.to_string()
        } else {
            format!("{}.{name}", self.prefix)
        }
    }

    /// Whether the parameter exists: in the file, or already as a variable.
    pub fn contains(&self, name: &str) -> bool {
        self.shape(name).is_some()
    }

    /// Shape of a parameter that exists.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let path = self.path(name);
        if let Origin::Variables { made, .. } = &self.shared.origin
            && let Some(shape) = made.shape(&path)
        {
            return Some(shape);
        }
        let (_, shape) = self.shared.origin.source()?.info(&path)?;
        Some(shape)
    }

    /// The parameter as f32. Where it is missing or has another shape, that is recorded and zeros
    /// stand in until [`Weights::finish`] reports it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn get(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        self.shared.get(&self.path(name), shape, init, false)
    }

    /// As [`Weights::get`], keeping bf16 and f16 as they are stored.
    pub fn get_stored(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        self.shared.get(&self.path(name), shape, init, true)
    }

    /// As [`Weights::get_stored`], in ordinary memory wherever parameters are put: for what is made of them first.
    ///
    /// # Errors
    /// As [`Weights::get`].
    pub(crate) fn get_stored_on_host(
        &self,
        name: &str,
        shape: &[usize],
        init: Init,
    ) -> Result<Tensor> {
        checkpoint()?;
        let path = self.path(name);
        self.shared.get_on_host(&path, shape, init, true)
    }

    /// Names and shapes that were asked for, in order, of [`WeightsBuilder::headers_only`]; empty
    /// otherwise.
    pub fn asked(&self) -> Vec<NamedShape> {
        let headers = self.shared.headers.as_ref();
        headers.map_or_else(Vec::new, Headers::asked)
    }

    /// Reports every tensor that was missing, mis-shaped or non-finite, and every tensor of the
    /// file that no layer asked for, except those `ignored`: exact names, prefixes that end in a
    /// dot, or endings that begin with one.
    ///
    /// # Errors
    /// [`Error::Weights`] with all of them; LoRA tensors that fit no layer are reported too.
    pub fn finish(&self, ignored: &[&str]) -> Result<()> {
        let shared = &self.shared;
        let source = shared.origin.source();
        let mut names = source.map_or_else(Vec::new, TensorSource::names);
        if let Some((low_bit, _)) = &shared.low_bit {
            let layers = low_bit.names().into_iter();
            names.extend(layers.map(|layer| format!("{layer}.{LOW_BIT}")));
        }
        let is_ignored = |name: &String| {
            let fits = |i: &&str| {
                name == *i
                    || (i.ends_with('.') && name.starts_with(i))
                    || (i.starts_with('.') && name.ends_with(i))
            };
            ignored.iter().any(fits)
        };
        names.retain(|name| !is_ignored(name));
        let report = shared.ledger.report(shared.ledger.unused(names), source);
        if !report.is_empty() {
            return Err(Error::Weights(Box::new(report)));
        }
        shared.adapters.finish()
    }

    /// All variables that are to be trained by full name, sorted. Empty for frozen parameters.
    pub fn variables(&self) -> Vec<(String, Var)> {
        let Origin::Variables { made, trained, .. } = &self.shared.origin else {
            return Vec::new();
        };
        let mut variables = made.all();
        variables.retain(|(name, _)| is_trained(trained, name));
        variables
    }
}

impl Shared {
    fn plain(origin: Origin) -> Self {
        Self {
            origin,
            adapters: Adapters::default(),
            low_bit: None,
            watcher: None,
            quantization: Quantization::None,
            kept: None,
            exact: false,
            location: Location::HOST,
            headers: None,
            ledger: Ledger::default(),
        }
    }

    fn get(&self, path: &str, shape: &[usize], init: Init, keep_half: bool) -> Result<Tensor> {
        checkpoint()?;
        let parameter = self.get_on_host(path, shape, init, keep_half)?;
        if self.headers.is_some() {
            return Ok(parameter);
        }
        // Models that were trained in f16 give noise in bf16, whose numbers are coarser.
        let device = self.location.device();
        let coarser = device.is_some_and(|device| device.precision() == Precision::Half);
        if coarser && parameter.dtype() == DType::F16 {
            return Err(Error::Config(format!(
                "{path} is stored in f16, and a card computes in bf16, in which such models give noise: \
                 take the model's files in bf16 (their names end in _BF16), or compute in f32 (`precise`)"
            )));
        }
        parameter.to(&self.location)
    }

    fn get_on_host(
        &self,
        path: &str,
        shape: &[usize],
        init: Init,
        keep_half: bool,
    ) -> Result<Tensor> {
        if let Some(headers) = &self.headers {
            self.look(path, shape)?;
            return headers.ask(path, shape);
        }
        match &self.origin {
            Origin::File(source) => match self.read(&**source, path, shape, keep_half)? {
                Some(tensor) => Ok(tensor),
                None => self.stand_in(shape),
            },
            Origin::Random(seed, storage) => {
                let changed = self.adapters.change(path);
                let storage = match keep_half && !changed {
                    true => *storage,
                    false => Storage::F32,
                };
                let tensor = made_up::tensor(path, *seed, shape, init, storage)?;
                self.adapters.apply(path, tensor)
            }
            Origin::Variables {
                source,
                seed,
                made,
                trained,
            } => made.get_or_make(path, || {
                // What is not trained has nothing to start from but the source, which says what it lacks.
                let whole = !is_trained(trained, path);
                let known = source
                    .as_deref()
                    .filter(|s| whole || s.info(path).is_some());
                let start = match known {
                    Some(source) => self.read(source, path, shape, false)?,
                    None => None,
                };
                start.map_or_else(|| variables::initial(path, *seed, shape, init), Ok)
            }),
        }
    }

    fn read(
        &self,
        source: &dyn TensorSource,
        path: &str,
        shape: &[usize],
        keep_half: bool,
    ) -> Result<Option<Tensor>> {
        self.stored(source).read(path, shape, keep_half)
    }

    fn stored<'a>(&'a self, source: &'a dyn TensorSource) -> Stored<'a> {
        Stored {
            source,
            adapters: &self.adapters,
            ledger: &self.ledger,
        }
    }

    /// Records whether the parameter is there, and checks what adapts it.
    fn look(&self, path: &str, shape: &[usize]) -> Result<()> {
        // A layer in few bits has its bias inside.
        let layer = path.rsplit_once('.').map_or("", |(layer, _)| layer);
        let low_bit = self.low_bit.as_ref();
        let few_bits =
            low_bit.is_some_and(|(source, _)| source.names().iter().any(|name| name == layer));
        if few_bits {
            self.ledger.used(&format!("{layer}.{LOW_BIT}"));
        } else if let Some(source) = self.origin.source()
            && self.stored(source).found(path, shape).is_none()
        {
            return Ok(());
        }
        self.adapters.check(path, shape, few_bits)
    }

    /// Zeros in place of a tensor that was not there, so that the rest can be checked. The shape is
    /// only the configuration's claim: a large one ends the check with what is known by then.
    fn stand_in(&self, shape: &[usize]) -> Result<Tensor> {
        const LIMIT: usize = 1 << 26;
        let count = shape
            .iter()
            .try_fold(1usize, |count, &side| count.checked_mul(side));
        if count.is_none_or(|count| count > LIMIT) {
            let report = self.ledger.report(Vec::new(), self.origin.source());
            return Err(Error::Weights(Box::new(report)));
        }
        Tensor::zeros(shape, DType::F32)
    }
}
