//! Which path and method does what. Reading the query is `query`, finding records is `search`, changing them is `shelf`;
//! here they are put together into answers (RFC 9110).

use http::header::{ALLOW, CONTENT_LENGTH, ETAG, HeaderName, HeaderValue, LINK, LOCATION};
use http::{Method, Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use serde_json::{Map, Value, json};

use super::Mock;
use super::answer::{self, Body, Problem};
use super::body;
use super::data::{Cell, Collection};
use super::query::{self, Filter, Query, Test};
use super::search::search;
use super::shelf::{Record, absent};
use super::tag::{Conditions, tag};

/// The most bytes of a list. Only records that a client wrote can be so large.
pub const MAX_LIST: usize = 16 << 20;

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// `/`, and `*` of `OPTIONS *`.
    Root,
    /// `/customers`
    List(Collection),
    /// `/customers/7`
    One(Collection, u64),
    /// `/customers/7/orders`: the orders that name this record.
    Orders(Collection, u64),
}

/// Answers one request, whatever it asks.
pub async fn answer(mock: &Mock, request: Request<Incoming>) -> Response<Body> {
    let head = request.method() == Method::HEAD;
    let answer = respond(mock, request).await.unwrap_or_else(Problem::answer);
    if head { bare(answer) } else { answer }
}

/// HEAD answers as GET does, the length included, but without the body (RFC 9110 section 9.3.2).
fn bare(mut answer: Response<Body>) -> Response<Body> {
    if let Some(length) = answer.body().size_hint().exact().filter(|length| *length > 0) {
        answer.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    answer.map(|_| Body::default())
}

async fn respond(mock: &Mock, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
    let place = Place::new(request.uri().path())?;
    let query = request.uri().query().unwrap_or("").to_owned();
    let when = Conditions::new(request.headers());
    let method = request.method().clone();
    if !matches!(place, Place::List(_) | Place::Orders(..)) || !matches!(method, Method::GET | Method::HEAD) {
        unasked(&query)?;
    }
    match (place, method) {
        (place, Method::OPTIONS) => {
            let mut answer = answer::empty(StatusCode::NO_CONTENT);
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(place.allow()));
            Ok(answer)
        }
        (Place::Root, Method::GET | Method::HEAD) => Ok(answer::json(StatusCode::OK, &index(mock))),
        (Place::List(collection), Method::GET | Method::HEAD) => {
            let query = Query::new(collection, &query)?;
            list(mock, collection, &query, &format!("/{}", collection.name())).await
        }
        (Place::Orders(owner, id), Method::GET | Method::HEAD) => orders(mock, owner, id, &query).await,
        (Place::One(collection, id), Method::GET | Method::HEAD) => read(mock, collection, id, &when),
        (Place::List(collection), Method::POST) => {
            let record = mock.store.create(collection, body::object(request, &mock.bodies).await?)?;
            let location = format!("/{}/{}", collection.name(), record.id);
            let mut answer = written(StatusCode::CREATED, &record);
            insert(&mut answer, LOCATION, &location);
            Ok(answer)
        }
        (Place::One(collection, id), Method::PUT) => {
            let fields = body::object(request, &mock.bodies).await?;
            Ok(written(StatusCode::OK, &*mock.store.replace(collection, id, fields, &when)?))
        }
        (Place::One(collection, id), Method::PATCH) => {
            let fields = body::object(request, &mock.bodies).await?;
            Ok(written(StatusCode::OK, &*mock.store.merge(collection, id, fields, &when)?))
        }
        (Place::One(collection, id), Method::DELETE) => {
            mock.store.remove(collection, id, &when)?;
            Ok(answer::empty(StatusCode::NO_CONTENT))
        }
        (place, _) => Err(Problem::method(place.allow())),
    }
}

impl Place {
    fn new(path: &str) -> Result<Self, Problem> {
        if matches!(path, "" | "/" | "*") {
            return Ok(Self::Root);
        }
        let path = path.strip_prefix('/').unwrap_or(path);
        let segments: Vec<&str> = path.strip_suffix('/').unwrap_or(path).splitn(4, '/').collect();
        let segments = segments.into_iter().map(query::decode).collect::<Result<Vec<_>, _>>()?;
        let words: Vec<&str> = segments.iter().map(String::as_str).collect();
        let collection = words.first().and_then(|name| Collection::ALL.into_iter().find(|known| known.name() == *name));
        let nowhere = || {
            Problem::absent(
                "There is nothing at this path.",
                "There are /, /customers, /orders, /products, a record as /customers/7, and /customers/7/orders.",
            )
        };
        let collection = collection.ok_or_else(nowhere)?;
        match words[1..] {
            [] => Ok(Self::List(collection)),
            [id] => Ok(Self::One(collection, number(id)?)),
            [id, "orders"] if collection != Collection::Orders => Ok(Self::Orders(collection, number(id)?)),
            _ => Err(nowhere()),
        }
    }

    fn allow(self) -> &'static str {
        match self {
            Self::Root | Self::Orders(..) => "GET, HEAD, OPTIONS",
            Self::List(_) => "GET, HEAD, POST, OPTIONS",
            Self::One(..) => "GET, HEAD, PUT, PATCH, DELETE, OPTIONS",
        }
    }
}

/// An id has one spelling: no sign, no leading zero.
fn number(text: &str) -> Result<u64, Problem> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| plain).ok_or_else(|| Problem::absent("There is no such record.", "Ids are whole numbers from 1."))
}

fn unasked(query: &str) -> Result<(), Problem> {
    if query.is_empty() {
        return Ok(());
    }
    Err(Problem::query("Nothing is to be asked here: only lists take a query.", "Leave out what follows the question mark."))
}

/// What there is, and how to ask for it.
fn index(mock: &Mock) -> String {
    let collections: Map<String, Value> = Collection::ALL
        .into_iter()
        .map(|collection| {
            let fields: Vec<&str> = collection.fields().iter().map(|field| field.name).collect();
            let (name, total) = (collection.name(), mock.store.view(collection).total());
            (name.to_owned(), json!({ "url": format!("/{name}"), "total": total, "fields": fields }))
        })
        .collect();
    let words: Map<String, Value> = query::WORDS.into_iter().map(|(word, meaning)| (word.to_owned(), meaning.into())).collect();
    let also = ["/customers/<id>/orders", "/products/<id>/orders"];
    json!({ "collections": collections, "also": also, "query": words, "seed": mock.store.world.seed() }).to_string()
}

async fn orders(mock: &Mock, owner: Collection, id: u64, raw: &str) -> Result<Response<Body>, Problem> {
    if !mock.store.view(owner).holds(id) {
        return Err(absent(owner, id));
    }
    let mut query = Query::new(Collection::Orders, raw)?;
    let name = if owner == Collection::Customers { "customer_id" } else { "product_id" };
    let field = Collection::Orders.field(name).unwrap_or_default();
    query.filters.insert(0, Filter { field, test: Test::Equal, values: vec![Cell::Number(id as f64)] });
    list(mock, Collection::Orders, &query, &format!("/{}/{id}/orders", owner.name())).await
}

async fn list(mock: &Mock, collection: Collection, query: &Query, path: &str) -> Result<Response<Body>, Problem> {
    let view = mock.store.view(collection);
    let found = search(&view, query, &mock.turns).await?;
    let mut text = String::from("[");
    for record in found.ids.iter().filter_map(|id| view.text(*id)) {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&record);
        if text.len() > MAX_LIST {
            return Err(Problem::work(format!("The list is longer than {MAX_LIST} bytes."), "Ask for fewer records with _limit."));
        }
    }
    text.push(']');
    let mut answer = answer::json(StatusCode::OK, &text);
    answer.headers_mut().insert(TOTAL, found.total.into());
    insert(&mut answer, LINK, &query.links(path, found.total));
    Ok(answer)
}

/// How many records a list has on all its pages.
const TOTAL: HeaderName = HeaderName::from_static("x-total-count");

fn read(mock: &Mock, collection: Collection, id: u64, when: &Conditions) -> Result<Response<Body>, Problem> {
    let view = mock.store.view(collection);
    let text = view.text(id).ok_or_else(|| absent(collection, id))?;
    let mut answer = if when.fresh(&text)? { answer::json(StatusCode::OK, &text) } else { answer::empty(StatusCode::NOT_MODIFIED) };
    insert(&mut answer, ETAG, &tag(&text));
    Ok(answer)
}

fn written(status: StatusCode, record: &Record) -> Response<Body> {
    let mut answer = answer::json(status, &record.text);
    insert(&mut answer, ETAG, &tag(&record.text));
    answer
}

/// All values are made of ASCII that is encoded already, so none is ever left out.
fn insert(answer: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}
