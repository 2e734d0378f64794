/// Declares a method for each setting of a struct that is `#[non_exhaustive]`, so that it can be written
/// outside of this crate: `Config::default().with_this(1).with_that(2)`. The method of an optional setting takes
/// the value itself as well as `None`.
macro_rules! with_settings {
    (
        $config:ident { $($method:ident = $field:ident: $type:ty),* $(,)? }
        $(optional { $($method_opt:ident = $field_opt:ident: $type_opt:ty),* $(,)? })?
    ) => {
        impl $config {
            $(
                #[doc = concat!(
                    "The same settings with another [`", stringify!($field), "`](Self::", stringify!($field), ")."
                )]
                #[must_use]
                pub fn $method(mut self, $field: $type) -> Self {
                    self.$field = $field;
                    self
                }
            )*
            $($(
                #[doc = concat!(
                    "The same settings with another [`", stringify!($field_opt), "`](Self::",
                    stringify!($field_opt), "), or none."
                )]
                #[must_use]
                pub fn $method_opt(mut self, $field_opt: impl Into<Option<$type_opt>>) -> Self {
                    self.$field_opt = $field_opt.into();
                    self
                }
            )*)?
        }
    };
}

pub(crate) use with_settings;
