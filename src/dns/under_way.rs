//! Questions under way: equal ones at the same time are asked once, and all who ask get the answer.
//!
//! A message asks some things several times at once (SPF for the name in EHLO and for the sender, and
//! ahead of either), and messages that come together ask about the same domains. Who joins a question
//! waits for it and does no work; it goes on as long as one is left who waits.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use futures_util::FutureExt;
use futures_util::future::Shared;

use crate::dns::Error;
use crate::dns::answers::Answer;

/// What comes of a question.
pub(super) type Outcome = Result<Arc<Answer>, Error>;

type Asked = Shared<Pin<Box<dyn Future<Output = Outcome> + Send>>>;

/// Those who wait for a question, and the question.
struct Question {
    waiting: usize,
    asked: Asked,
}

/// The questions that are asked now. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub(super) struct UnderWay(Arc<Mutex<HashMap<Box<str>, Question>>>);

impl UnderWay {
    /// What comes of the question `key`. It is asked by `ask` where nobody waits for it yet.
    ///
    /// Cancel safe: the question is given up with the last who waits.
    pub(super) async fn join<F>(&self, key: &str, ask: impl FnOnce() -> F) -> Outcome
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let (asked, _place) = self.take_place(key, ask);
        asked.await
    }

    fn take_place<F>(&self, key: &str, ask: impl FnOnce() -> F) -> (Asked, Place<'_>)
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let key = Box::<str>::from(key);
        let asked = match self.questions().entry(key.clone()) {
            Entry::Occupied(mut question) => {
                let question = question.get_mut();
                question.waiting += 1;
                question.asked.clone()
            }
            Entry::Vacant(place) => {
                let asked: Asked = ask().boxed().shared();
                let question = Question {
                    waiting: 1,
                    asked: asked.clone(),
                };
                place.insert(question);
                asked
            }
        };
        let all = self;
        (asked, Place { all, key })
    }

    /// No code that could panic runs under the lock, so that poison means nothing here.
    fn questions(&self) -> MutexGuard<'_, HashMap<Box<str>, Question>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one who waits.
struct Place<'a> {
    all: &'a UnderWay,
    key: Box<str>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut questions = self.all.questions();
        let last = match questions.get_mut(&self.key) {
            Some(question) if question.waiting > 1 => {
                question.waiting -= 1;
                None
            }
            Some(_) | None => questions.remove(&self.key),
        };
        // What it holds is given back without the lock.
        drop(questions);
        drop(last);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::future::ready;
    use std::time::Duration;

    use futures_util::poll;
    use tokio::sync::oneshot;

    use super::*;
    use crate::dns::Existence;
    use crate::dns::answers::Records;

    fn nothing() -> Outcome {
        let nothing = Records::Nothing(Existence::Exists);
        Ok(Arc::new(Answer::new(nothing, Duration::ZERO)))
    }

    #[tokio::test]
    async fn equal_questions_are_asked_once_and_others_beside_them() {
        let under_way = UnderWay::default();
        let (answer, answered) = oneshot::channel();
        let first = under_way.join("a", || async { answered.await.unwrap() });
        let mut first = Box::pin(first);
        assert!(poll!(&mut first).is_pending());
        let mut second = Box::pin(under_way.join("a", || async { unreachable!() }));
        assert!(poll!(&mut second).is_pending());
        let other = under_way.join("b", || ready(Err(Error::NotFound)));
        assert_eq!(other.await.err(), Some(Error::NotFound));
        answer.send(nothing()).unwrap();
        let (first, second) = tokio::join!(first, second);
        assert!(Arc::ptr_eq(&first.unwrap(), &second.unwrap()));
        assert!(under_way.questions().is_empty());
    }

    #[tokio::test]
    async fn a_question_goes_on_when_who_asked_it_is_gone() {
        let under_way = UnderWay::default();
        let (answer, answered) = oneshot::channel();
        let mut first = Box::pin(under_way.join("a", || async { answered.await.unwrap() }));
        assert!(poll!(&mut first).is_pending());
        let mut second = Box::pin(under_way.join("a", || async { unreachable!() }));
        assert!(poll!(&mut second).is_pending());
        drop(first);
        answer.send(nothing()).unwrap();
        assert!(second.await.is_ok());
        assert!(under_way.questions().is_empty());
    }

    #[tokio::test]
    async fn a_question_that_nobody_waits_for_is_given_up() {
        let under_way = UnderWay::default();
        let mut only = Box::pin(under_way.join("a", pending));
        assert!(poll!(&mut only).is_pending());
        drop(only);
        assert!(under_way.questions().is_empty());
        assert!(under_way.join("a", || ready(nothing())).await.is_ok());
    }
}
