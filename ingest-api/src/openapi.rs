//! The OpenAPI document, made from the route table and the types of the handlers.

use axum::Router;
use runtime::problem::Code;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, PathItem, Paths};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, Object, SchemaType, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Components, Content, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Required, Response, ResponseBuilder, Schema,
    ServerBuilder,
};
use utoipa::{IntoParams, ToSchema};
use utoipa_swagger_ui::SwaggerUi;

use crate::access::Permission;
use crate::router::{BASE, Route, routes};

type Schemas = Vec<(String, RefOr<Schema>)>;

/// What the document says about one route.
pub struct Operation {
    builder: OperationBuilder,
    schemas: Schemas,
    /// The body of its success.
    given: Option<RefOr<Schema>>,
    /// Whether a repeated request is answered 200 with what it was answered first.
    is_replayed: bool,
}

impl Operation {
    pub fn new(summary: &'static str) -> Self {
        let builder = OperationBuilder::new().summary(Some(summary));
        Operation { builder, schemas: Vec::new(), given: None, is_replayed: false }
    }

    /// A page of these: a schema of its own for each kind of item.
    pub fn lists<B: ToSchema>(&mut self) {
        let item = self.reference::<B>();
        let page = Object::builder()
            .property("items", ArrayBuilder::new().items(item))
            .required("items")
            .property(
                "next_cursor",
                Object::builder()
                    .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
                    .description(Some("For `cursor`; null on the last page.")),
            )
            .required("next_cursor")
            .build();
        let name = format!("{}Page", B::name());
        self.schemas.push((name.clone(), page.into()));
        self.answers(200, Ref::from_schema_name(name).into());
    }

    fn mentions<B: ToSchema>(&mut self) {
        self.schemas.push((B::name().into_owned(), B::schema()));
        B::schemas(&mut self.schemas);
    }

    fn reference<B: ToSchema>(&mut self) -> RefOr<Schema> {
        self.mentions::<B>();
        Ref::from_schema_name(B::name()).into()
    }

    pub fn takes<B: ToSchema>(&mut self, is_required: bool) {
        let body = self.reference::<B>();
        let required = if is_required { Required::True } else { Required::False };
        let body = RequestBodyBuilder::new()
            .content("application/json", Content::new(Some(body)))
            .required(Some(required))
            .build();
        self.builder = std::mem::take(&mut self.builder).request_body(Some(body));
    }

    pub fn gives<B: ToSchema>(&mut self, status: u16) {
        let body = self.reference::<B>();
        self.answers(status, body);
    }

    fn answers(&mut self, status: u16, body: RefOr<Schema>) {
        self.given = Some(body.clone());
        self.builder = std::mem::take(&mut self.builder).response(status.to_string(), done("Done", body));
    }

    /// Takes an Idempotency-Key.
    pub fn keyed(&mut self) {
        self.is_replayed = true;
        self.header("Idempotency-Key", "1 to 255 visible characters, new for each act");
    }

    pub fn asks<P: IntoParams>(&mut self) {
        let mut builder = std::mem::take(&mut self.builder);
        for parameter in P::into_params(|| Some(ParameterIn::Query)) {
            builder = builder.parameter(parameter);
        }
        self.builder = builder;
    }

    pub fn header(&mut self, name: &str, description: &str) {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .required(Required::True)
            .description(Some(description))
            .schema(Some(Object::with_type(Type::String)))
            .build();
        self.builder = std::mem::take(&mut self.builder).parameter(parameter);
    }
}

fn done(description: &str, body: RefOr<Schema>) -> Response {
    ResponseBuilder::new().description(description).content("application/json", Content::new(Some(body))).build()
}

/// The catalogue of codes, which the description of the document explains.
struct ProblemCode;

impl ToSchema for ProblemCode {}

impl utoipa::PartialSchema for ProblemCode {
    fn schema() -> RefOr<Schema> {
        Object::builder()
            .schema_type(Type::String)
            .description(Some("One of the codes in the description of this document; later versions may add more."))
            .enum_values(Some(Code::ALL.iter().map(|code| code.code())))
            .into()
    }
}

/// One wrong place of a request.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what error.rs writes")]
struct ProblemFinding {
    /// JSON pointer into the body, for instance `/lines/0/qty`.
    pointer: String,
    code: ProblemCode,
    message: String,
}

/// RFC 9457. Every answer of 400 and above has this form.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what error.rs writes")]
struct Problem {
    r#type: String,
    title: String,
    status: u16,
    detail: String,
    /// That of the first finding, where there are any.
    code: ProblemCode,
    /// Whether the very same request may succeed when it is sent again.
    retryable: bool,
    request_id: String,
    errors: Vec<ProblemFinding>,
}

/// The document.
pub fn document() -> OpenApi {
    let mut schemas: Schemas = vec![("Problem".to_owned(), <Problem as utoipa::PartialSchema>::schema())];
    Problem::schemas(&mut schemas);
    let mut paths = Paths::new();
    for route in routes() {
        let path = format!("{BASE}{}", route.path);
        let method = match route.method {
            axum::http::Method::GET => HttpMethod::Get,
            axum::http::Method::PATCH => HttpMethod::Patch,
            axum::http::Method::PUT => HttpMethod::Put,
            _ => HttpMethod::Post,
        };
        let operation = describe(route, &mut schemas);
        match paths.paths.get_mut(&path) {
            Some(item) => item.merge_operations(PathItem::new(method, operation)),
            None => {
                paths.paths.insert(path, PathItem::new(method, operation));
            }
        }
    }
    let mut components = Components::new();
    for (name, schema) in schemas {
        // Two types of one name: the later would stand where the earlier is meant.
        debug_assert!(components.schemas.get(&name).is_none_or(|known| *known == schema), "{name} is two schemas");
        components.schemas.insert(name, schema);
    }
    components.add_security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    OpenApiBuilder::new()
        .info(InfoBuilder::new().title("Vorca POS").version("1").description(Some(description())))
        .servers(Some([ServerBuilder::new().url("/").build()]))
        .paths(paths)
        .components(Some(components))
        .build()
}

fn describe(route: Route, schemas: &mut Schemas) -> utoipa::openapi::path::Operation {
    let Route { method, path, permission, operation, .. } = route;
    let Operation { mut builder, schemas: own, given, is_replayed } = operation;
    schemas.extend(own);
    if let Some(body) = given.filter(|_| is_replayed) {
        builder = builder.response("200", done("Done before: the very same answer", body));
    }
    for name in path.split(['{', '}']).skip(1).step_by(2) {
        let id = Object::builder()
            .schema_type(Type::String)
            .format(Some(utoipa::openapi::SchemaFormat::Custom("uuid".into())));
        builder = builder.parameter(
            ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .schema(Some(id.build())),
        );
    }
    let problem = ResponseBuilder::new()
        .description("A problem")
        .content("application/problem+json", Content::new(Some(Ref::from_schema_name("Problem"))))
        .build();
    builder = builder
        .operation_id(Some(format!("{} {path}", method.as_str())))
        .tag(path.split('/').nth(1).unwrap_or(""))
        .response("default", problem);
    if permission == Permission::Public {
        builder.description(Some("Public.")).build()
    } else {
        let roles: Vec<_> = permission.roles().iter().map(|role| role.as_str()).collect();
        let terminal = if permission.is_for_terminals() { ", terminals" } else { "" };
        let client = if permission.is_for_clients() { ", API clients that were given it" } else { "" };
        builder
            .description(Some(format!("Permission `{permission:?}`: {}{terminal}{client}.", roles.join(", "))))
            .security(SecurityRequirement::new("token", Vec::<String>::new()))
            .build()
    }
}

fn description() -> String {
    let mut text =
        "Money is i64 minor units, quantities are i64 thousandths, times are RFC 3339 in UTC. An answer that \
                    a budget counted says so in `RateLimit-Policy` and `RateLimit`. Every answer of 400 and above is a \
                    `Problem` with one of these codes:\n\n"
            .to_owned();
    for code in Code::ALL {
        text.push_str(&format!("- `{}` ({}): {}\n", code.code(), code.status(), code.title()));
    }
    text
}

/// The document as it is committed.
pub fn text() -> Result<String, serde_json::Error> {
    Ok(document().to_pretty_json()? + "\n")
}

/// `/docs` to read and try, `/api/v1/openapi.json` for machines.
pub fn pages() -> Router {
    SwaggerUi::new("/docs").url(format!("{BASE}/openapi.json"), document()).into()
}
