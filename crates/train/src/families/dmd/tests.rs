//! What each update changes, and what it must not.

use std::sync::Arc;

use brisk_models::hunyuan_video::transformer::{VideoTransformer, VideoTransformerConfig};
use brisk_nn::Weights;
use brisk_store::TensorSource;
use serde_json::json;

use super::networks::Networks;
use super::recipe::Turn;
use super::{CriticOptions, DmdRecipe};
use crate::families::lora_pairs::values;
use crate::optimiser::Gradients;
use crate::rng::Rng;
use crate::tensors;

fn config() -> VideoTransformerConfig {
    VideoTransformerConfig {
        in_channels: 4,
        out_channels: 4,
        num_attention_heads: 2,
        attention_head_dim: 8,
        num_layers: 1,
        num_single_layers: 2,
        num_refiner_layers: 1,
        mlp_ratio: 2.0,
        guidance_embeds: false,
        text_embed_dim: 8,
        pooled_projection_dim: 8,
        rope_axes_dim: [2, 2, 4],
        ..VideoTransformerConfig::default()
    }
}

fn recipe(weak: f64) -> DmdRecipe {
    let document = json!({
        "name": "tiny", "clip_size": 16, "frames": 5, "clips": 2, "steps": 2, "flow_shift": 5.0, "guidance": 2.0,
        "training": {
            "seed": 1, "batch": 2, "steps": 4, "max_minutes": null, "optimiser": "adamw", "learning_rate": 1e-3,
            "warm_up_steps": 0, "decay": "constant", "weight_decay": 0.0, "clip": null, "ema_decay": 0.9,
            "log_every": 1, "checkpoint_every": 10
        },
        "guidance_updates": 2, "critic_first_updates": 1, "critic_updates": 3, "time_range": [0.02, 0.98],
        "critic": {"rank": 2, "strong": 1.0, "weak": weak}, "adversarial_weight": 0.1,
        "critic_adversarial_weight": 0.1, "head_blocks": [1], "eval_every": 10, "eval_clips": 2, "final_clips": 2
    });
    serde_json::from_value(document).unwrap()
}

/// Weights of which none is zero.
fn teacher() -> Arc<dyn TensorSource> {
    let weights = Weights::trainable(None, 1);
    VideoTransformer::load(&config(), &weights.pp("transformer")).unwrap();
    let mut arrays = tensors::copy_variables(&weights.variables()).unwrap();
    let mut rng = Rng::new(2);
    for array in &mut arrays {
        let noise = rng.normals(array.values.len());
        for (value, noise) in array.values.iter_mut().zip(noise) {
            *value += 0.1 * noise;
        }
    }
    tensors::memory_source(&arrays, "", false).unwrap()
}

#[test]
fn the_critic_learns_by_its_pairs_alone() {
    let source = teacher();
    let stored = |name: &str| {
        let view = source.view(name).unwrap().unwrap();
        view.to_f32().unwrap()
    };
    for weak in [0.0, 0.25] {
        let networks = Networks::new(&config(), &source, &recipe(weak)).unwrap();
        // Of a double block 2·6 layers, of a single one 5.
        assert_eq!(networks.pairs.len(), 12 + 2 * 5);
        let mut rng = Rng::new(4);
        for pair in &networks.pairs {
            let learned = rng.normals(pair.up.elem_count());
            tensors::set(&pair.up, learned).unwrap();
        }
        networks.renew().unwrap();
        // Twice: sums begin at the teacher's weights each time.
        networks.renew().unwrap();
        for (pair, held) in networks.pairs.iter().zip(networks.held()) {
            let own = stored(&format!("{}.weight", pair.layer));
            assert_eq!(pair.own, own, "{}: the base is as it was", pair.layer);
            let product = |scale: f32| {
                let (down, up) = (values(&pair.down).unwrap(), values(&pair.up).unwrap());
                pair.sum(&down, &up, scale)
            };
            let seen = values(&pair.weight).unwrap();
            assert_eq!(seen, product(1.0));
            assert_ne!(seen, own);
            let of_teacher = values(held).unwrap();
            match weak == 0.0 {
                true => assert_eq!(of_teacher, own),
                false => assert_eq!(of_teacher, product(0.25)),
            }
        }
        let paired = |name: &str| {
            let layers = networks
                .pairs
                .iter()
                .map(|pair| format!("{}.weight", pair.layer));
            layers.into_iter().any(|layer| layer == name)
        };
        for (name, variable) in networks.fake_variables() {
            if !paired(&name) {
                assert_eq!(values(&variable).unwrap(), stored(&name), "{name}");
            }
        }
    }
}

#[test]
fn the_critics_update_gives_the_student_nothing() {
    let networks = Networks::new(&config(), &teacher(), &recipe(0.1)).unwrap();
    let seen = networks.seen_by_critic();
    let gradients = seen
        .iter()
        .map(|(_, variable)| Some(vec![1.0; variable.elem_count()]));
    let pulled = networks.pull(Gradients::of(gradients.collect())).unwrap();
    let variables = networks.variables();
    let arrays = pulled.into_arrays();
    assert_eq!(arrays.len(), variables.len());
    for ((name, variable), array) in variables.iter().zip(&arrays) {
        let of_student = name.starts_with("transformer.");
        assert_eq!(array.is_none(), of_student, "{name}");
        if let Some(array) = array {
            assert_eq!(array.len(), variable.elem_count(), "{name}");
        }
    }
}

#[test]
fn updates_take_turns() {
    let recipe = recipe(0.0);
    let turns: Vec<Turn> = (0..11).map(|step| recipe.turn(step)).collect();
    use Turn::{Critic, Guidance, Student};
    assert_eq!(
        turns,
        [
            Guidance, Guidance, Critic, Critic, Critic, Critic, Student, Critic, Critic, Critic,
            Student
        ]
    );
    recipe.validate().unwrap();
    let refused = |change: fn(&mut DmdRecipe)| {
        let mut other = recipe.clone();
        change(&mut other);
        other.validate().unwrap_err().to_string()
    };
    let weak = |recipe: &mut DmdRecipe| {
        recipe.critic = CriticOptions {
            weak: 2.0,
            ..recipe.critic
        };
    };
    for (message, word) in [
        (refused(weak), "critic.weak is 2"),
        (refused(|r| r.time_range = (0.5, 0.5)), "time_range"),
        (refused(|r| r.steps = 0), "steps is 0"),
        (refused(|r| r.critic_updates = 0), "critic_updates is 0"),
        (refused(|r| r.head_blocks = vec![1, 1]), "head_blocks"),
        (
            refused(|r| r.critic_adversarial_weight = 0.0),
            "critic_adversarial_weight",
        ),
        (refused(|r| r.guidance = -1.0), "guidance is -1"),
    ] {
        assert!(message.contains(word), "{message}");
    }
}
