//! The values that files are made of.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use minijinja::Value;
use minijinja::value::{Enumerator, Object, ObjectRepr};
use sealedenv_seal::Plain;
use zeroize::Zeroizing;

use crate::Fault;

/// The values of one SealedEnv by key, made ready for templates. No Debug with content, Display, Clone or Serialize.
///
/// The template engine keeps its texts in memory of its own, which is not wiped when it is freed but by an allocator
/// that does so, as the operator's.
pub struct Values {
    slots: Arc<Slots>,
    misused: Arc<AtomicBool>,
}

struct Slots(BTreeMap<String, Slot>);

enum Slot {
    Text(Value),
    Bytes(Arc<Binary>),
    Closed,
}

/// A value that is not UTF-8. Whatever turns it into text leaves a mark, since the engine does not ask whether it may.
struct Binary {
    bytes: Zeroizing<Vec<u8>>,
    misused: Arc<AtomicBool>,
}

impl Values {
    /// Every key of `data` and `public`; None where its value does not open.
    pub fn new<'a>(keys: impl IntoIterator<Item = (&'a str, Option<&'a Plain>)>) -> Self {
        let misused = Arc::new(AtomicBool::new(false));
        let slot = |value: Option<&Plain>| match value.map(Plain::expose) {
            None => Slot::Closed,
            Some(bytes) => match str::from_utf8(bytes) {
                Ok(text) => Slot::Text(Value::from(text)),
                Err(_) => Slot::Bytes(Arc::new(Binary {
                    bytes: Zeroizing::new(bytes.to_vec()),
                    misused: Arc::clone(&misused),
                })),
            },
        };
        let slots = keys.into_iter().map(|(name, value)| (name.to_owned(), slot(value))).collect();
        Self { slots: Arc::new(Slots(slots)), misused }
    }

    /// The names of all keys, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.slots.0.keys().map(String::as_str)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.slots.0.contains_key(key)
    }

    /// The exact bytes of a value.
    pub(crate) fn bytes(&self, key: &str) -> Result<&[u8], Fault> {
        match self.slots.0.get(key) {
            None => Err(Fault::NoKey(key.into())),
            Some(Slot::Closed) => Err(Fault::KeyNotOpened(key.into())),
            Some(Slot::Text(text)) => Ok(text.as_str().unwrap_or_default().as_bytes()),
            Some(Slot::Bytes(binary)) => Ok(&binary.bytes),
        }
    }

    /// A value as text.
    pub(crate) fn text(&self, key: &str) -> Result<&str, Fault> {
        str::from_utf8(self.bytes(key)?).map_err(|_| Fault::NotText(key.into()))
    }

    /// What a template sees: each key by its name, and all of them as `keys`.
    pub(crate) fn root(&self) -> Value {
        Value::from_object(Root(Arc::clone(&self.slots)))
    }

    /// Whether a value that is not text was used as text since this was last asked.
    pub(crate) fn take_misuse(&self) -> bool {
        self.misused.swap(false, Ordering::Relaxed)
    }
}

impl Slots {
    /// For the engine. A key that did not open ends the template where it is looked up.
    fn look_up(&self, name: &str) -> Option<Value> {
        Some(match self.0.get(name)? {
            Slot::Text(text) => text.clone(),
            Slot::Bytes(binary) => Value::from_dyn_object(Arc::clone(binary)),
            Slot::Closed => Value::from(crate::template::error(Fault::KeyNotOpened(name.into()))),
        })
    }
}

/// The names that a template can use.
struct Root(Arc<Slots>);

impl Object for Root {
    fn get_value(self: &Arc<Self>, name: &Value) -> Option<Value> {
        match name.as_str()? {
            crate::template::KEYS => Some(Value::from_object(Keys(Arc::clone(&self.0)))),
            name => self.0.look_up(name),
        }
    }
}

/// All keys. Iterating gives their names.
struct Keys(Arc<Slots>);

impl Object for Keys {
    fn get_value(self: &Arc<Self>, name: &Value) -> Option<Value> {
        self.0.look_up(name.as_str()?)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.0.keys().map(|name| Value::from(name.as_str())).collect())
    }
}

impl Binary {
    fn misuse(&self) {
        self.misused.store(true, Ordering::Relaxed);
    }
}

impl Object for Binary {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }

    fn render(self: &Arc<Self>, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.misuse();
        Ok(())
    }
}

/// The bytes behind a value of the engine that is not text.
pub(crate) fn binary(value: &Value) -> Option<&[u8]> {
    value.downcast_object_ref::<Binary>().map(|binary| binary.bytes.as_slice())
}

impl fmt::Debug for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.misuse();
        f.write_str("Binary")
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Root")
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}
