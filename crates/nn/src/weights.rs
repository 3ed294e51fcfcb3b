//! Named parameters: read from files for inference, held as variables for training, or made up
//! for timing.

use crate::error::{Error, Result, WeightReport};
use crate::lora::Lora;
use crate::low_bit::LowBitSource;
use crate::ops::{self, PackedInt4};
use crate::quantised::{Quantisation, QuantisedWeights};
use crate::random;
use crate::tensor::{DType, Tensor};
use brisk_kernels::int4::{Activations, Branch, Int4Linear, Int4Weight};
use brisk_kernels::quantised::QuantisedMatrix;
use brisk_store::{Dtype, TensorSource};
use candle_core::Var;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard};

/// How a parameter starts when it is trained from scratch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// One value.
    Constant(f32),
    /// Gaussian with this standard deviation.
    Normal(f32),
    /// Gaussian with this standard deviation divided by √inputs: what enters with variance 1 leaves
    /// with its square.
    FanIn(f32),
    /// Uniform in ±√(6/(inputs + outputs)).
    XavierUniform,
    /// Uniform in ±1/√inputs, PyTorch's default for linear layers and convolutions.
    KaimingUniform,
}

/// How [`Weights::random`] keeps matrices that layers take as they are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// 32 bits.
    F32,
    /// 16 bits, as most published files.
    Bf16,
}

/// Sees the input of every linear layer, by the layer's full name.
pub type InputWatcher = Arc<dyn Fn(&str, &Tensor) + Send + Sync>;

/// A tensor's name and shape.
pub type NamedShape = (String, Vec<usize>);

struct Shared {
    source: Option<Arc<dyn TensorSource>>,
    lora: Option<Lora>,
    low_bit: Option<(Arc<dyn LowBitSource>, Activations)>,
    watcher: Option<InputWatcher>,
    variables: Option<Mutex<BTreeMap<String, Var>>>,
    /// Parameters are made up when they are asked for.
    random: Option<Storage>,
    /// Only names and shapes are looked at: what was asked for so far.
    asked: Option<Mutex<Vec<NamedShape>>>,
    seed: u64,
    report: Mutex<WeightReport>,
    used: Mutex<BTreeSet<String>>,
}

/// A path prefix over one set of named parameters. Cheap to clone.
///
/// Loading collects every problem (missing, mis-shaped, non-finite tensors) instead of stopping
/// at the first; [`Weights::finish`] reports them together and must be called once the model
/// has been built.
#[derive(Clone)]
pub struct Weights {
    shared: Arc<Shared>,
    prefix: String,
    quantisation: Quantisation,
    kept: Option<Arc<QuantisedWeights>>,
    exact: bool,
}

/// Stands for a layer's weight where that is held in few bits.
const LOW_BIT: &str = "qweight";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Weights {
    /// Frozen parameters from a file.
    pub fn from_source(source: Arc<dyn TensorSource>) -> Self {
        Self::new(Some(source), None, None, 0)
    }

    /// Frozen random parameters at whatever shapes layers ask for; seed and name decide the
    /// values. For timing: every parameter exists, so nothing is ever missing, and the values keep
    /// activations in range but mean nothing.
    pub fn random(seed: u64, storage: Storage) -> Self {
        Self::new(None, None, Some(storage), seed)
    }

    /// Variables for training: each starts from `source` where that has it, else as its layer
    /// says, from a generator seeded by `seed` and the parameter's name.
    pub fn trainable(source: Option<Arc<dyn TensorSource>>, seed: u64) -> Self {
        Self::new(source, Some(Mutex::default()), None, seed)
    }

    /// The same parameters, of which only names and shapes are looked at: a model built from them
    /// holds next to nothing and computes nothing, but [`Weights::finish`] reports what it would
    /// report of a load, values apart. Without a file every parameter exists. Call it before any
    /// parameter is read.
    pub fn headers_only(self) -> Self {
        let looked = self.with(|shared| shared.asked = Some(Mutex::default()));
        looked.quantised(Quantisation::None, None)
    }

    /// Names and shapes that were asked for since [`Weights::headers_only`], in order.
    pub fn asked(&self) -> Vec<NamedShape> {
        let asked = self.shared.asked.as_ref();
        asked.map(|asked| lock(asked).clone()).unwrap_or_default()
    }

    fn new(
        source: Option<Arc<dyn TensorSource>>,
        variables: Option<Mutex<BTreeMap<String, Var>>>,
        random: Option<Storage>,
        seed: u64,
    ) -> Self {
        let (report, used) = Default::default();
        let shared = Shared {
            source,
            lora: None,
            low_bit: None,
            watcher: None,
            variables,
            random,
            asked: None,
            seed,
            report,
            used,
        };
        Self {
            shared: Arc::new(shared),
            prefix: String::new(),
            quantisation: Quantisation::None,
            kept: None,
            exact: false,
        }
    }

    /// Adds `scale·(alpha/rank)·B·A` of a LoRA file to the weights it names.
    /// Call it before any parameter is read.
    ///
    /// # Errors
    /// A file without LoRA tensors, or with incomplete or mis-shaped pairs.
    pub fn with_lora(self, file: Arc<dyn TensorSource>, scale: f32) -> Result<Self> {
        let lora = Lora::read(file, scale)?;
        Ok(self.with(|shared| shared.lora = Some(lora)))
    }

    /// Adds layers that are held in few bits, with how their inputs are rounded; a layer that is not
    /// among them is read plainly. Call it before any parameter is read and before
    /// [`Weights::with_lora`].
    pub fn with_low_bit(self, source: Arc<dyn LowBitSource>, activations: Activations) -> Self {
        self.with(|shared| shared.low_bit = Some((source, activations)))
    }

    /// Lets `watcher` see what goes into every linear layer. Call it before any parameter is read and
    /// before [`Weights::with_lora`].
    pub fn with_watcher(self, watcher: InputWatcher) -> Self {
        self.with(|shared| shared.watcher = Some(watcher))
    }

    /// Fresh frozen parameters from the same places, with something changed.
    fn with(self, change: impl FnOnce(&mut Shared)) -> Self {
        let mut shared = Shared {
            source: self.shared.source.clone(),
            lora: None,
            low_bit: self.shared.low_bit.clone(),
            watcher: self.shared.watcher.clone(),
            variables: None,
            random: self.shared.random,
            asked: None,
            seed: self.shared.seed,
            report: Mutex::default(),
            used: Mutex::default(),
        };
        change(&mut shared);
        Self {
            shared: Arc::new(shared),
            ..self
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
        if self.shared.asked.is_some() {
            return Ok(None);
        }
        let paths = names.iter().map(|name| match *name {
            "" => self.prefix.clone(),
            name => self.path(name),
        });
        let paths: Vec<String> = paths.collect();
        let Some(weight) = source.layers(&paths, inputs, outputs)? else {
            return Ok(None);
        };
        if !weight.fits() || weight.inputs != inputs || weight.outputs != outputs {
            return Err(Error::Config(format!(
                "layer {}: its 4-bit parts are not those of a layer of {outputs:?}x{inputs}",
                paths.join(", ")
            )));
        }
        let mut used = lock(&self.shared.used);
        used.extend(paths.iter().map(|path| format!("{path}.{LOW_BIT}")));
        let packed = |weight: &Int4Weight| PackedInt4::new(Int4Linear::new(weight), *activations);
        let mut widened = Vec::new();
        if let Some(lora) = &self.shared.lora {
            for (path, outputs) in paths.iter().zip(outputs) {
                widened.push(lora.factors(path, *outputs, inputs)?);
            }
        }
        if widened.iter().all(Option::is_none) {
            return Ok(Some(vec![packed(&weight)]));
        }
        let each = weight.split().into_iter().zip(widened);
        let each = each.map(|(mut weight, more)| {
            if let Some((rank, down, up)) = more {
                weight.widen_branch(Branch { rank, down, up });
            }
            packed(&weight)
        });
        Ok(Some(each.collect()))
    }

    /// What watches the layer at this path, and the path.
    pub(crate) fn watcher(&self) -> Option<(InputWatcher, String)> {
        let watcher = self.shared.watcher.as_ref()?;
        Some((watcher.clone(), self.prefix.clone()))
    }

    /// Has linear layers quantise their weights, one at a time, where they are frozen. `kept` gives
    /// the weights of an earlier load and takes those of this one; it is left alone under a LoRA.
    pub fn quantised(self, how: Quantisation, kept: Option<Arc<QuantisedWeights>>) -> Self {
        Self {
            quantisation: how,
            kept,
            ..self
        }
    }

    /// The matrix `[outputs, inputs]` of shape `shape`, quantised; none where it is to be kept as it
    /// is stored. `read` gives the stored one.
    pub(crate) fn quantise(
        &self,
        name: &str,
        shape: &[usize],
        read: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Option<Arc<QuantisedMatrix>>> {
        let Some(bits) = self.quantisation.bits() else {
            return Ok(None);
        };
        if self.is_trainable() {
            return Ok(None);
        }
        let path = self.path(name);
        let size = (shape[0], shape[1]);
        let kept = self.kept.as_ref().filter(|_| self.shared.lora.is_none());
        let fits = self.shape(name).is_some_and(|found| found == shape);
        if let (Some(kept), true) = (kept, fits)
            && let Some(matrix) = kept.earlier(&path, size, bits)?
        {
            lock(&self.shared.used).insert(path);
            return Ok(Some(Arc::new(matrix)));
        }
        let matrix = Arc::new(ops::quantise(&read()?.reshape(size)?, bits)?);
        if let Some(kept) = kept {
            kept.keep(path, &matrix);
        }
        Ok(Some(matrix))
    }

    /// Layers loaded from here on compute convolutions tap by tap instead of by Winograd's transforms,
    /// whose results differ in the last bits.
    pub fn exact(mut self, exact: bool) -> Self {
        self.exact = exact;
        self
    }

    /// Whether [`Weights::exact`] was asked for.
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// The parameters below `part`, as in `weights.pp("blocks").pp(3)`.
    pub fn pp(&self, part: impl Display) -> Self {
        Self {
            shared: self.shared.clone(),
            prefix: self.path(&part.to_string()),
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
        if let Some(variables) = &self.shared.variables
            && let Some(variable) = lock(variables).get(&path)
        {
            return Some(variable.dims().to_vec());
        }
        self.shared
            .source
            .as_ref()?
            .info(&path)
            .map(|(_, shape)| shape)
    }

    /// Whether parameters are variables that an optimiser will change.
    pub fn is_trainable(&self) -> bool {
        self.shared.variables.is_some()
    }

    /// The parameter as f32. Where it is missing or has another shape, that is recorded and zeros
    /// stand in until [`Weights::finish`] reports it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn get(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        self.fetch(name, shape, init, false)
    }

    /// As [`Weights::get`], keeping bf16 and f16 as they are stored.
    pub fn get_stored(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        self.fetch(name, shape, init, true)
    }

    fn fetch(&self, name: &str, shape: &[usize], init: Init, keep_half: bool) -> Result<Tensor> {
        let path = self.path(name);
        if let Some(asked) = &self.shared.asked {
            lock(asked).push((path.clone(), shape.to_vec()));
            return self.look(&path, shape);
        }
        if let Some(storage) = self.shared.random {
            return self.make(&path, shape, init, keep_half && storage == Storage::Bf16);
        }
        let Some(variables) = &self.shared.variables else {
            let loaded = self.load(&path, shape, keep_half)?;
            return match loaded {
                Some(tensor) => Ok(tensor),
                None => self.stand_in(shape),
            };
        };
        if let Some(variable) = lock(variables).get(&path) {
            return Ok(variable.as_tensor().into());
        }
        let known = self
            .shared
            .source
            .as_ref()
            .is_some_and(|s| s.info(&path).is_some());
        let start = if known {
            self.load(&path, shape, false)?
        } else {
            None
        };
        let start = match start {
            Some(tensor) => tensor,
            None => Tensor::from_vec(initial(&path, self.shared.seed, shape, init), shape)?,
        };
        let variable = Var::from_tensor(start.inner())?;
        let tensor = variable.as_tensor().into();
        lock(variables).insert(path, variable);
        Ok(tensor)
    }

    /// Records whether the parameter is there; what stands for it takes no memory.
    fn look(&self, path: &str, shape: &[usize]) -> Result<Tensor> {
        let shared = &self.shared;
        // A layer in few bits has its bias inside.
        let layer = path.rsplit_once('.').map_or("", |(layer, _)| layer);
        let low_bit = shared.low_bit.as_ref();
        if low_bit.is_some_and(|(source, _)| source.names().iter().any(|name| name == layer)) {
            lock(&shared.used).insert(format!("{layer}.{LOW_BIT}"));
        } else if shared.source.is_some() {
            self.found(path, shape);
        }
        // As a variable is no constant, layers leave it as it is instead of packing it.
        let zero = Var::from_tensor(Tensor::zeros((), DType::F32)?.inner())?;
        Tensor::from(zero.as_tensor()).broadcast_as(shape)
    }

    fn make(&self, path: &str, shape: &[usize], init: Init, half: bool) -> Result<Tensor> {
        let seed = self.shared.seed;
        let lora = match &self.shared.lora {
            Some(lora) => lora.delta(path, shape)?,
            None => None,
        };
        if half && lora.is_none() {
            let values = random::values_bf16(path, seed, shape, init);
            return Tensor::from_vec(values, shape);
        }
        let values = random::values_f32(path, seed, shape, init);
        let tensor = Tensor::from_vec(values, shape)?;
        Ok(match lora {
            Some(delta) => (tensor + delta)?,
            None => tensor,
        })
    }

    /// Zeros in place of a tensor that was not there, so that the rest can be checked. The shape is
    /// only the configuration's claim: a large one ends the check with what is known by then.
    fn stand_in(&self, shape: &[usize]) -> Result<Tensor> {
        const LIMIT: usize = 1 << 26;
        let count = shape
            .iter()
            .try_fold(1usize, |count, &side| count.checked_mul(side));
        if count.is_none_or(|count| count > LIMIT) {
            let mut report = lock(&self.shared.report).clone();
            report.origin = self.origin(&report);
            return Err(Error::Weights(Box::new(report)));
        }
        Tensor::zeros(shape, DType::F32)
    }

    /// The file a report is about.
    fn origin(&self, report: &WeightReport) -> String {
        let lists = [&report.missing, &report.unexpected, &report.non_finite];
        let named = lists.iter().find_map(|list| list.first());
        let named = named.or(report.misshapen.first().map(|(name, ..)| name));
        let Some(source) = &self.shared.source else {
            return String::new();
        };
        match named.or(source.names().first()) {
            Some(name) => source.origin(name),
            None => "an empty file".to_string(),
        }
    }

    /// The stored type of a tensor; `None` when it is missing or mis-shaped, which is recorded.
    fn found(&self, path: &str, shape: &[usize]) -> Option<Dtype> {
        let shared = &self.shared;
        lock(&shared.used).insert(path.to_string());
        let Some((dtype, found)) = shared.source.as_ref()?.info(path) else {
            lock(&shared.report).missing.push(path.to_string());
            return None;
        };
        if found != shape {
            let report = (path.to_string(), found, shape.to_vec());
            lock(&shared.report).misshapen.push(report);
            return None;
        }
        Some(dtype)
    }

    /// Reads one tensor; `None` when it is missing or mis-shaped, which is recorded.
    fn load(&self, path: &str, shape: &[usize], keep_half: bool) -> Result<Option<Tensor>> {
        let shared = &self.shared;
        let (Some(dtype), Some(source)) = (self.found(path, shape), &shared.source) else {
            return Ok(None);
        };
        let Some(view) = source.view(path)? else {
            lock(&shared.report).missing.push(path.to_string());
            return Ok(None);
        };
        let half = match dtype {
            Dtype::BF16 => Some(0x7f80),
            Dtype::F16 => Some(0x7c00),
            _ => None,
        };
        let delta = match &shared.lora {
            Some(lora) => lora.delta(path, shape)?,
            None => None,
        };
        if let (true, Some(exponent), None) = (keep_half, half, &delta) {
            // All-ones exponent bits mean infinity or NaN.
            let (pairs, _) = view.data.as_chunks::<2>();
            if pairs
                .iter()
                .any(|b| u16::from_le_bytes(*b) & exponent == exponent)
            {
                lock(&shared.report).non_finite.push(path.to_string());
            }
            let tensor = Tensor::from_view(&view)?;
            source.forget(path);
            return Ok(Some(tensor));
        }
        let values = view.to_f32()?;
        source.forget(path);
        if !brisk_kernels::finite::all_finite(&values) {
            lock(&shared.report).non_finite.push(path.to_string());
        }
        let tensor = Tensor::from_vec(values, shape)?;
        Ok(Some(match delta {
            Some(delta) => (tensor + delta)?,
            None => tensor,
        }))
    }

    /// Reports every tensor that was missing, mis-shaped or non-finite, and every tensor of the
    /// file that no layer asked for, except those `ignored`: exact names, prefixes that end in a
    /// dot, or endings that begin with one.
    ///
    /// # Errors
    /// [`Error::Weights`] with all of them; LoRA tensors that fit no layer are reported too.
    pub fn finish(&self, ignored: &[&str]) -> Result<()> {
        let mut report = lock(&self.shared.report).clone();
        let used = lock(&self.shared.used);
        if let Some(source) = &self.shared.source {
            let ignore = |name: &str| {
                ignored.iter().any(|i| {
                    name == *i
                        || (i.ends_with('.') && name.starts_with(i))
                        || (i.starts_with('.') && name.ends_with(i))
                })
            };
            let unexpected = |name: &String| !used.contains(name) && !ignore(name);
            report.unexpected = source.names().into_iter().filter(unexpected).collect();
            if let Some((low_bit, _)) = &self.shared.low_bit {
                let layers = low_bit.names().into_iter();
                let names = layers.map(|layer| format!("{layer}.{LOW_BIT}"));
                report.unexpected.extend(names.filter(unexpected));
            }
            report.origin = self.origin(&report);
        }
        if !report.is_empty() {
            return Err(Error::Weights(Box::new(report)));
        }
        match &self.shared.lora {
            Some(lora) => lora.finish(),
            None => Ok(()),
        }
    }

    /// All variables by full name, sorted. Empty for frozen parameters.
    pub fn variables(&self) -> Vec<(String, Var)> {
        match &self.shared.variables {
            Some(variables) => lock(variables)
                .iter()
                .map(|(n, v)| (n.clone(), v.clone()))
                .collect(),
            None => Vec::new(),
        }
    }
}

/// Starting values: a generator of its own for each name, so that adding a layer elsewhere
/// changes nothing here.
fn initial(name: &str, seed: u64, shape: &[usize], init: Init) -> Vec<f32> {
    let count: usize = shape.iter().product();
    let taps: usize = shape.iter().skip(2).product();
    let inputs = shape.get(1).copied().unwrap_or(1) * taps;
    let outputs = shape.first().copied().unwrap_or(1) * taps;
    let mut random = Generator(random::hash(name, seed));
    let mut uniform = |bound: f32| (0..count).map(|_| random.uniform() * bound).collect();
    match init {
        Init::Zeros => vec![0.0; count],
        Init::Ones => vec![1.0; count],
        Init::Constant(value) => vec![value; count],
        Init::Normal(deviation) => (0..count).map(|_| random.normal() * deviation).collect(),
        Init::FanIn(scale) => {
            let deviation = scale / (inputs.max(1) as f32).sqrt();
            (0..count).map(|_| random.normal() * deviation).collect()
        }
        Init::XavierUniform => uniform((6.0 / (inputs + outputs) as f32).sqrt()),
        Init::KaimingUniform => uniform((1.0 / inputs.max(1) as f32).sqrt()),
    }
}

/// SplitMix64.
struct Generator(u64);

impl Generator {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        random::mix(self.0)
    }

    /// In −1..1.
    fn uniform(&mut self) -> f32 {
        ((self.next() >> 40) as f32 / (1u64 << 23) as f32) - 1.0
    }

    fn normal(&mut self) -> f32 {
        let u = ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let v = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    }
}
