//! The steps of the stack, one file each. A step is one `async fn handle`; [`layer`] adapts it to `tower::Layer`.
//! Steps know nothing of each other: the order is `stack.rs`.

pub mod accounts;
pub mod audit;
pub mod follow;
pub mod forward;
pub mod in_flight;
pub mod prepare;
pub mod reflect;
pub mod respond;
pub mod shape;
pub mod sign;
pub mod site;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Response;
use tower::util::Either;
use tower::{Layer, Service};

use crate::body::Body;
use crate::call::Call;
use crate::error::Error;

/// What a step returns.
pub type Answer = Result<Response<Body>, Error>;

/// Stands in the extensions of an answer that came from another origin than the resource's.
#[derive(Clone, Copy, Debug)]
pub struct Elsewhere;

/// One step. Its future stays on the core that runs it.
pub trait Step: Send + Sync + 'static {
    /// Handles a call: by itself, or by handing it on and looking at the answer.
    fn handle(&self, call: Call, next: &impl Next) -> impl Future<Output = Answer>;
}

/// The steps behind this one.
pub trait Next: 'static {
    /// Hands the call on.
    fn run(&self, call: Call) -> impl Future<Output = Answer>;
}

impl<S> Next for S
where
    S: Service<Call, Response = Response<Body>, Error = Error> + Clone + 'static,
{
    // Every service of the stack is ready at any time, so `poll_ready` has nothing to say and `oneshot` would only cost.
    fn run(&self, call: Call) -> impl Future<Output = Answer> {
        self.clone().call(call)
    }
}

/// The layer of a step that may be switched off; `None` passes straight through.
pub fn layer<M: Step>(step: Option<M>) -> Either<StepLayer<M>, tower::layer::util::Identity> {
    match step {
        Some(step) => Either::Left(always(step)),
        None => Either::Right(tower::layer::util::Identity::new()),
    }
}

/// The layer of a step that is always there.
pub fn always<M: Step>(step: M) -> StepLayer<M> {
    StepLayer(Arc::new(step))
}

/// Makes a [`Stepped`] of what lies below.
#[derive(Debug)]
pub struct StepLayer<M>(Arc<M>);

impl<M, S> Layer<S> for StepLayer<M> {
    type Service = Stepped<M, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Stepped(Arc::new((self.0.clone(), inner)))
    }
}

/// A step in front of a service. One allocation shared by all calls.
#[derive(Debug)]
pub struct Stepped<M, S>(Arc<(Arc<M>, S)>);

impl<M, S> Clone for Stepped<M, S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Step, S: Next> Service<Call> for Stepped<M, S> {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Answer>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let this = self.0.clone();
        pinned(move || async move { this.0.handle(call, &this.1).await })
    }
}

/// [`Box::pin`], but made where it will live: a future has room for all that it may ever hold, and moving that to the
/// heap for every step of every request showed in profiles.
#[inline(always)]
pub fn pinned<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    Box::into_pin(Box::write(Box::new_uninit(), make()))
}

/// A resource's stack behind one box, so that all resources have the same type.
pub struct Route(Box<dyn Run>);

trait Run: Send + Sync {
    fn run(&self, call: Call) -> Pin<Box<dyn Future<Output = Answer> + '_>>;
}

impl<M: Step, S: Next + Send + Sync> Run for Stepped<M, S> {
    fn run(&self, call: Call) -> Pin<Box<dyn Future<Output = Answer> + '_>> {
        self.clone().call(call)
    }
}

impl Route {
    /// Boxes a stack by its outermost step.
    pub fn new<M: Step, S: Next + Send + Sync>(stack: Stepped<M, S>) -> Self {
        Self(Box::new(stack))
    }

    /// Runs a call through the stack.
    pub async fn run(&self, call: Call) -> Answer {
        self.0.run(call).await
    }
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Route")
    }
}
