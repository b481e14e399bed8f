//! The content of one file on its way to a pod.

use zeroize::Zeroizing;

/// An opened value between the operator and the pod's files.
///
/// It has no `Debug`, `Display`, `Clone` or `Serialize`, and its memory is wiped when it is dropped.
///
/// ```compile_fail
/// let content = sealedenv_delivery::Content::new(b"hunter2".to_vec());
/// println!("{content:?}"); // no Debug
/// ```
/// ```compile_fail
/// let content = sealedenv_delivery::Content::new(b"hunter2".to_vec());
/// let copy = content.clone(); // no Clone
/// ```
/// What those refuse is only the last line:
/// ```
/// let content = sealedenv_delivery::Content::new(b"hunter2".to_vec());
/// assert_eq!(content.expose(), b"hunter2");
/// ```
pub struct Content(Zeroizing<Vec<u8>>);

impl Content {
    /// Takes the bytes over. Copies that the caller made before are the caller's to wipe.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves. Every copy made of them is the caller's to wipe.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes. An empty file is a file.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives the bytes up to a message, which wipes them itself.
    pub(crate) fn into_message(mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}
