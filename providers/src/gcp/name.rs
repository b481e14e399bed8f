//! Names of secrets and their versions. Pure.

/// Where a store's secrets are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    project: String,
    location: Option<String>,
}

/// A place that there is none of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// The project is none.
    #[error("a project of Google Cloud is its id or its number")]
    Project,
    /// The location would lead to another host.
    #[error("a location of Google Cloud is lower-case letters, digits and -")]
    Location,
}

impl Place {
    /// A project, and the location where its secrets are regional ones.
    ///
    /// # Errors
    /// [`PlaceError`].
    pub fn new(project: &str, location: Option<&str>) -> Result<Self, PlaceError> {
        if !is_project(project) {
            return Err(PlaceError::Project);
        }
        if location.is_some_and(|location| !is_location(location)) {
            return Err(PlaceError::Location);
        }
        Ok(Self { project: project.to_owned(), location: location.map(str::to_owned) })
    }

    /// <https://cloud.google.com/secret-manager/docs/reference/rest#service-endpoint>
    pub(super) fn endpoint(&self) -> String {
        match &self.location {
            Some(location) => format!("https://secretmanager.{location}.rep.googleapis.com"),
            None => "https://secretmanager.googleapis.com".to_owned(),
        }
    }

    /// The whole name of a version of a secret. None: there is none of such a name.
    pub(super) fn version(&self, path: &str, version: Option<&str>) -> Option<String> {
        let parts: Vec<&str> = path.split('/').collect();
        let (project, location, secret) = match parts.as_slice() {
            [secret] => (self.project.as_str(), self.location.as_deref(), *secret),
            ["projects", project, "secrets", secret] => (*project, None, *secret),
            ["projects", project, "locations", location, "secrets", secret] => {
                (*project, Some(*location), *secret)
            }
            _ => return None,
        };
        // Secrets of another location are behind another address.
        if !is_project(project) || !is_word(secret) || location != self.location.as_deref() {
            return None;
        }
        let version = version.unwrap_or("latest");
        let location = location.map(|location| format!("/locations/{location}")).unwrap_or_default();
        is_word(version).then(|| format!("projects/{project}{location}/secrets/{secret}/versions/{version}"))
    }
}

fn is_project(text: &str) -> bool {
    let of_project = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':');
    !text.is_empty() && text.len() <= 128 && !text.starts_with('.') && text.bytes().all(of_project)
}

fn is_location(text: &str) -> bool {
    let of_location = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.len() <= 63 && text.bytes().all(of_location)
}

/// What secrets and aliases are called.
fn is_word(text: &str) -> bool {
    let of_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !text.is_empty() && text.len() <= 255 && text.bytes().all(of_word)
}

#[cfg(test)]
mod tests {
    use http::Uri;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_secret_goes_by_its_name_or_its_whole_name() {
        let global = Place::new("shop", None).unwrap();
        let regional = Place::new("shop", Some("europe-west3")).unwrap();
        let own = "projects/shop/secrets/db/versions/latest";
        let of_region = "projects/shop/locations/europe-west3/secrets/db/versions/latest";
        for (place, path, version, expected) in [
            (&global, "db", None, Some(own)),
            (&global, "db", Some("5"), Some("projects/shop/secrets/db/versions/5")),
            (&global, "projects/other/secrets/db", None, Some("projects/other/secrets/db/versions/latest")),
            (
                &global,
                "projects/a.test:b/secrets/db",
                None,
                Some("projects/a.test:b/secrets/db/versions/latest"),
            ),
            (&regional, "db", None, Some(of_region)),
            (&regional, "projects/shop/locations/europe-west3/secrets/db", None, Some(of_region)),
            (&regional, "projects/shop/secrets/db", None, None),
            (&regional, "projects/shop/locations/us-east1/secrets/db", None, None),
            (&global, "projects/shop/locations/europe-west3/secrets/db", None, None),
            (&global, "projects/shop/secrets/db/versions/5", None, None),
            (&global, "projects/../secrets/db", None, None),
            (&global, "projects//secrets/db", None, None),
            (&global, "", None, None),
            (&global, "..", None, None),
            (&global, "db:destroy", None, None),
            (&global, "d?b", None, None),
            (&global, "db", Some(""), None),
            (&global, "db", Some("5/x"), None),
            (&global, "db", Some("5:destroy?"), None),
        ] {
            assert_eq!(place.version(path, version).as_deref(), expected, "{path} {version:?}");
        }
        assert!(global.version(&"a".repeat(255), None).is_some());
        assert_eq!(global.version(&"a".repeat(256), None), None);
        assert_eq!(global.endpoint(), "https://secretmanager.googleapis.com");
        assert_eq!(regional.endpoint(), "https://secretmanager.europe-west3.rep.googleapis.com");
    }

    #[test]
    fn a_place_leads_to_google_and_nowhere_else() {
        for project in ["", "..", "a/b", "a b", "a?", &"a".repeat(129)] {
            assert_eq!(Place::new(project, None), Err(PlaceError::Project), "{project}");
        }
        for location in ["", "evil.test/", "a.b", "A", &"a".repeat(64)] {
            assert_eq!(Place::new("shop", Some(location)), Err(PlaceError::Location), "{location}");
        }
    }

    proptest! {
        #[test]
        fn any_name_is_a_path_of_the_api(path in "(projects/)?[a-z:.?/%#]{0,12}(/secrets/[a-z.:%]{0,4})?", version: Option<String>) {
            let place = Place::new("shop", None).unwrap();
            if let Some(name) = place.version(&path, version.as_deref()) {
                let whole: Uri = format!("https://a.test/v1/{name}:access").parse().unwrap();
                prop_assert_eq!(whole.path(), format!("/v1/{name}:access"));
                prop_assert_eq!(name.split('/').count(), 6);
            }
        }
    }
}
