//! Gradients and shapes.

use super::*;

#[test]
fn gradients_flow_through_it() {
    let x = variable(vec![1.0, -2.0, 3.0], &[3]);
    assert!(x.track_op() && !x.detach().track_op());
    let y = ((&x * &x).unwrap() * 0.5).unwrap().sum_all().unwrap();
    let gradients = y.host().unwrap().backward().unwrap();
    let gradient = gradients.get(x.on_host("test").unwrap()).unwrap();
    assert_eq!(gradient.to_vec1::<f32>().unwrap(), [1.0, -2.0, 3.0]);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let a = Tensor::ones((2, 3), DType::F32).unwrap();
    let b = Tensor::ones((3, 2), DType::F32).unwrap();
    assert!((&a + &b).is_err() && a.reshape((4, 2)).is_err() && a.narrow(0, 1, 2).is_err());
    assert_eq!(a.reshape((3, ())).unwrap().dims(), [3, 2]);
    assert_eq!(Tensor::cat(&[&a, &a], D::Minus1).unwrap().dims(), [2, 6]);
}
