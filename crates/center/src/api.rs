//! The HTTP API: who calls, what is wrong in words, and where each part is. Handlers are in a file per noun.

mod contents;
mod control;
mod explain;
mod network;
mod nodes;
mod session;

use crate::hub::Hub;
use crate::tokens::{Claims, TokenRole};
use axum::extract::{ConnectInfo, FromRequestParts, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{OpenApi, ToSchema};

/// How long a request may take.
const REQUEST_WITHIN: Duration = Duration::from_secs(30);
/// How long an upload may take.
const UPLOAD_WITHIN: Duration = Duration::from_secs(600);
/// A body other than a static log.
const MAX_BODY_BYTES: usize = 64 << 10;

type Shared = State<Arc<Hub>>;

/// What went wrong, and what to do.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApiError {
    #[serde(skip)]
    status: StatusCode,
    error: String,
}

impl ApiError {
    fn new(status: StatusCode, error: impl Into<String>) -> ApiError {
        ApiError { status, error: error.into() }
    }
    fn bad_request(error: impl Into<String>) -> ApiError {
        Self::new(StatusCode::BAD_REQUEST, error)
    }
    fn not_found(error: impl Into<String>) -> ApiError {
        Self::new(StatusCode::NOT_FOUND, error)
    }
    fn internal(error: impl Into<String>) -> ApiError {
        let error = error.into();
        tracing::error!("a request failed: {error}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status;
        let mut response = (status, Json(self)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Who calls, as the token says.
pub(crate) struct Caller(Claims);

impl Caller {
    fn is_admin(&self) -> bool {
        self.0.role == TokenRole::Admin
    }
    /// Only administrators.
    fn admin(&self) -> Result<(), ApiError> {
        if self.is_admin() { Ok(()) } else { Err(forbidden("an administrator's token is needed here")) }
    }
    /// Whether the caller manages the content of this name.
    fn manages(&self, name: &str) -> bool {
        self.is_admin() || (self.0.role == TokenRole::Publisher && self.0.covers(name))
    }
    /// Administrators and publishers.
    fn manager(&self) -> Result<(), ApiError> {
        match self.0.role {
            TokenRole::Admin | TokenRole::Publisher => Ok(()),
            TokenRole::Viewer | TokenRole::Join => {
                Err(forbidden("a publisher's or an administrator's token is needed here"))
            }
        }
    }
    fn manager_of(&self, name: &str) -> Result<(), ApiError> {
        self.manager()?;
        if self.manages(name) {
            return Ok(());
        }
        let names = self.0.names.join(", ");
        Err(forbidden(format!(
            "this token is for the names {names} and not for {name:?}: ask an administrator for one"
        )))
    }
}

fn forbidden(error: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, error)
}

impl FromRequestParts<Arc<Hub>> for Caller {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, hub: &Arc<Hub>) -> Result<Caller, ApiError> {
        let unauthorized = |why: &str| ApiError::new(StatusCode::UNAUTHORIZED, why);
        let given = parts.headers.get(header::AUTHORIZATION).ok_or_else(|| {
            unauthorized(
                "a token is needed: send \"Authorization: Bearer TOKEN\"; the first administrator's token is in admin.token in the identity folder",
            )
        })?;
        let token = given.to_str().ok().and_then(|text| text.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        let token = token.ok_or_else(|| unauthorized("the Authorization header must be \"Bearer TOKEN\""))?;
        hub.tokens.check(token).map(Caller).map_err(|e| unauthorized(&e.to_string()))
    }
}

/// Parameters of the query, with errors as the API gives them.
pub(crate) struct Params<T>(T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Hub>> for Params<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &Arc<Hub>) -> Result<Params<T>, ApiError> {
        let query = Query::try_from_uri(&parts.uri).map_err(|e| ApiError::bad_request(e.body_text()))?;
        Ok(Params(query.0))
    }
}

/// A body of at most `most_bytes`.
async fn body_of(request: Request, most_bytes: usize) -> Result<axum::body::Bytes, ApiError> {
    axum::body::to_bytes(request.into_body(), most_bytes).await.map_err(|e| {
        let mut cause: Option<&dyn std::error::Error> = Some(&e);
        while let Some(e) = cause {
            if e.to_string().contains("length limit") {
                let error = format!("the body has more than {most_bytes} bytes, which is the most");
                return ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, error);
            }
            cause = e.source();
        }
        ApiError::bad_request("the body was cut off")
    })
}

/// The document of this API.
#[derive(OpenApi)]
#[openapi(
    info(title = "Headwater control center", description = "Contents, nodes, decisions and records of a control center."),
    paths(
        contents::publish,
        contents::list,
        contents::show,
        contents::withdraw,
        nodes::list,
        nodes::show,
        explain::explain,
        network::links,
        session::open,
        session::page,
        control::status,
        control::events,
        control::transfers,
        control::make_token,
        control::healthz,
        control::metrics
    ),
    modifiers(&Bearer)
)]
struct Document;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// All routes.
pub(crate) fn router(hub: Arc<Hub>) -> Router {
    let uploads = Router::new()
        .route("/v1/contents", post(contents::publish).get(contents::list))
        .layer(axum::middleware::from_fn(|r: Request, next: Next| within(UPLOAD_WITHIN, r, next)));
    Router::new()
        .route("/v1/contents/{*which}", get(contents::show).delete(contents::withdraw))
        .route("/v1/nodes", get(nodes::list))
        .route("/v1/nodes/{prefix}", get(nodes::show))
        .route("/v1/session", get(session::open))
        .route("/v1/page", get(session::page))
        .route("/v1/explain", get(explain::explain))
        .route("/v1/network", get(network::links))
        .route("/v1/status", get(control::status))
        .route("/v1/events", get(control::events))
        .route("/v1/transfers", get(control::transfers))
        .route("/v1/tokens", post(control::make_token))
        .route("/v1/openapi.json", get(|| async { Json(Document::openapi()) }))
        .route("/healthz", get(control::healthz))
        .route("/metrics", get(control::metrics))
        .layer(axum::middleware::from_fn(|r: Request, next: Next| within(REQUEST_WITHIN, r, next)))
        .merge(uploads)
        .fallback(|| async { ApiError::not_found("no such path; GET /v1/openapi.json lists them") })
        .method_not_allowed_fallback(|| async {
            let error = "this path has no such method; GET /v1/openapi.json lists them";
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, error)
        })
        .layer(axum::middleware::from_fn_with_state(hub.clone(), count))
        .with_state(hub)
}

async fn count(State(hub): Shared, request: Request, next: Next) -> Response {
    hub.counters.api_requests.inc();
    next.run(request).await
}

async fn within(limit: Duration, request: Request, next: Next) -> Response {
    tokio::time::timeout(limit, next.run(request)).await.unwrap_or_else(|_| {
        let error = format!("the request took more than {} s", limit.as_secs());
        ApiError::new(StatusCode::REQUEST_TIMEOUT, error).into_response()
    })
}

/// Where a request comes from.
fn is_loopback(from: &ConnectInfo<SocketAddr>) -> bool {
    from.0.ip().to_canonical().is_loopback()
}
