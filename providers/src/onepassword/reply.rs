//! What a Connect server's answers mean.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use http::StatusCode;
use sealedenv_seal::Plain;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::reference::is_id;
use crate::transport::Reply;
use crate::{Ask, Outcome, Read};

/// Of a list of vaults or of items.
#[derive(Deserialize)]
struct Listed {
    id: String,
    #[serde(alias = "name")]
    title: String,
}

/// Values stay as they were written.
#[derive(Deserialize)]
struct Item<'a> {
    id: String,
    version: Option<u64>,
    state: Option<String>,
    #[serde(default)]
    sections: Vec<Section>,
    #[serde(default, borrow)]
    fields: Vec<Field<'a>>,
}

#[derive(Deserialize)]
struct Field<'a> {
    id: String,
    label: Option<String>,
    section: Option<Section>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Section {
    id: String,
    label: Option<String>,
}

/// What Connect says where it says no.
#[derive(Deserialize)]
struct No {
    status: u16,
    message: String,
}

/// What a field or a section can be called in a reference. A name with a `/` cannot: the id is used instead.
fn names<'a>(id: &'a str, label: Option<&'a str>) -> impl Iterator<Item = String> + 'a {
    let label = label.filter(|label| *label != id);
    let names = [id].into_iter().chain(label).filter(|name| !name.is_empty() && !name.contains('/'));
    names.map(str::to_lowercase)
}

/// The id of the one of a list that has this name. None: none has. Case makes no difference, unless it is what tells two
/// from each other.
pub(super) fn named(reply: &Reply, name: &str) -> Result<Option<String>, Outcome> {
    let listed: Vec<Listed> = read(reply)?;
    let same = |one: &&Listed| one.title == name;
    let alike = |one: &&Listed| one.title.to_lowercase() == name.to_lowercase();
    let mut found: Vec<&Listed> = listed.iter().filter(same).collect();
    if found.is_empty() {
        found = listed.iter().filter(alike).collect();
    }
    match found.as_slice() {
        [] => Ok(None),
        [one] if is_id(&one.id) => Ok(Some(one.id.clone())),
        _ => Err(Outcome::Malformed),
    }
}

/// An item: its fields by all names that they have in references, as one level of JSON.
pub(super) fn item(reply: &Reply, ask: &Ask) -> Outcome {
    let item: Item<'_> = match read(reply) {
        Ok(item) => item,
        Err(outcome) => return outcome,
    };
    let version = item.version.map(|version| version.to_string());
    let asked = ask.path.rsplit('/').next().unwrap_or_default();
    let is_another = is_id(asked) && item.id != asked || ask.version.is_some() && ask.version != version;
    if is_another {
        return Outcome::Malformed;
    }
    if item.state.is_some_and(|state| !state.is_empty()) {
        return Outcome::NotFound; // archived or deleted: it is in no list any more
    }
    match serde_json::to_vec(&by_name(&item.sections, &item.fields)) {
        Ok(content) => Outcome::Found(Read { content: Plain::from(content), version, lease: None }),
        Err(_) => Outcome::Malformed,
    }
}

/// Fields by their names. What two have in common is there and null, so that it is never taken for missing.
fn by_name<'a>(sections: &[Section], fields: &[Field<'a>]) -> BTreeMap<String, &'a RawValue> {
    let (mut outside, mut inside, mut with) = (Names::default(), Names::default(), Names::default());
    for (at, field) in fields.iter().enumerate() {
        let own = || names(&field.id, field.label.as_deref());
        let Some(section) = &field.section else {
            own().for_each(|name| outside.claim(name, at));
            continue;
        };
        let section = sections.iter().find(|one| one.id == section.id).unwrap_or(section);
        for section in names(&section.id, section.label.as_deref()) {
            own().for_each(|name| with.claim(format!("{section}/{name}"), at));
        }
        own().for_each(|name| inside.claim(name, at));
    }
    // A field outside goes before those of sections.
    for (name, field) in inside.0.into_iter().chain(with.0) {
        outside.0.entry(name).or_insert(field);
    }
    let value = |field: Option<usize>| fields.get(field?)?.value;
    outside.0.into_iter().map(|(name, field)| (name, value(field).unwrap_or(RawValue::NULL))).collect()
}

/// Which field a name is of. None: of more than one.
#[derive(Default)]
struct Names(BTreeMap<String, Option<usize>>);

impl Names {
    fn claim(&mut self, name: String, field: usize) {
        match self.0.entry(name) {
            Entry::Vacant(free) => {
                free.insert(Some(field));
            }
            Entry::Occupied(mut taken) if *taken.get() != Some(field) => {
                taken.insert(None);
            }
            Entry::Occupied(_) => {}
        }
    }
}

fn read<'a, T: Deserialize<'a>>(reply: &'a Reply) -> Result<T, Outcome> {
    match reply.status {
        StatusCode::OK => serde_json::from_slice(reply.body.expose()).map_err(|_| Outcome::Malformed),
        _ => Err(refused(reply)),
    }
}

/// A status that is none of success.
fn refused(reply: &Reply) -> Outcome {
    match reply.status.as_u16() {
        404 => nothing(reply),
        401 | 403 => Outcome::Denied,
        429 | 500..=599 => Outcome::Unavailable { retry_after: reply.retry_after },
        _ => Outcome::Malformed,
    }
}

/// What a 404 means. Of an item it is an answer. Of a vault it says the same as a refusal would. And whatever stands before
/// Connect says it in words of its own, while Connect is away.
fn nothing(reply: &Reply) -> Outcome {
    match serde_json::from_slice::<No>(reply.body.expose()) {
        Ok(no) if no.status == 404 && no.message.to_lowercase().starts_with("item") => Outcome::NotFound,
        Ok(no) if no.status == 404 => Outcome::Denied,
        _ => Outcome::Unavailable { retry_after: reply.retry_after },
    }
}
