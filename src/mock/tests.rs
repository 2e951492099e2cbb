//! The API over a real loopback socket, in raw HTTP.

use std::net::SocketAddr;

use http::HeaderMap;
use http::header::HeaderName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

struct Served {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Reply {
    fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in lines.map(|line| line.split_once(": ").unwrap()) {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        Self { status, headers, body: body.to_owned() }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn ids(&self) -> Vec<u64> {
        self.json().as_array().unwrap().iter().map(|record| record["id"].as_u64().unwrap()).collect()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The address in `Link` with this relation.
    fn link(&self, rel: &str) -> Option<String> {
        let link = self.header("link").split(", ").find(|link| link.ends_with(&format!("rel=\"{rel}\"")))?;
        Some(link.strip_prefix('<')?.split_once('>')?.0.to_owned())
    }

    /// Asserts that this is a problem with this status, and gives all its words.
    fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"], status);
        format!("{} {}", problem["detail"].as_str().unwrap(), problem["hint"].as_str().unwrap())
    }
}

async fn served(bounds: Bounds, items: u64) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let until = async {
        let _ = stopped.await;
    };
    let task = tokio::spawn(serve_within(bounds, listener, Arc::new(service(Settings { seed: 1, items })), until));
    Served { address, stop: Some(stop), task }
}

async fn mock(items: u64) -> Served {
    served(BOUNDS, items).await
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn raw(&self, request: &str) -> Reply {
        let mut stream = self.connect().await;
        // A server that answers early may close before all is written.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await.unwrap();
        Reply::read(&String::from_utf8(text).unwrap())
    }

    /// A request with these lines behind the first: headers.
    async fn with(&self, line: &str, headers: &str, body: &str) -> Reply {
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        self.raw(&format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{length}{headers}\r\n{body}")).await
    }

    async fn send(&self, line: &str, body: &str) -> Reply {
        self.with(line, "Content-Type: application/json\r\n", body).await
    }

    async fn get(&self, target: &str) -> Reply {
        self.with(&format!("GET {target}"), "", "").await
    }
}

#[tokio::test]
async fn the_root_lists_collections_and_query_words() {
    let mock = mock(100).await;
    let root = mock.get("/").await.json();
    assert_eq!(root["collections"]["customers"]["total"], 100);
    assert_eq!(root["collections"]["orders"]["fields"][1], "customer_id");
    assert!(root["query"]["_page"].is_string());
}

#[tokio::test]
async fn a_list_has_ten_records_a_total_and_links() {
    let mock = mock(25).await;
    let list = mock.get("/customers").await;
    assert_eq!(list.status, 200);
    assert_eq!(list.header("content-type"), "application/json");
    assert_eq!(list.header("x-total-count"), "25");
    assert_eq!(list.ids(), (1..=10).collect::<Vec<_>>());
    assert_eq!(list.link("next").as_deref(), Some("/customers?_page=2"));
    assert_eq!(list.link("last").as_deref(), Some("/customers?_page=3"));
    assert_eq!(list.link("prev"), None);
}

#[tokio::test]
async fn following_next_links_meets_every_record_once() {
    let mock = mock(23).await;
    let mut seen = Vec::new();
    let mut target = Some("/products?_limit=5&category_like=%6f&_sort=-price".to_owned());
    let total: usize = mock.get(target.as_deref().unwrap()).await.header("x-total-count").parse().unwrap();
    while let Some(here) = target {
        let list = mock.get(&here).await;
        seen.extend(list.ids());
        target = list.link("next");
    }
    assert_eq!(seen.len(), total);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), total);
}

#[tokio::test]
async fn pages_by_start_have_links_by_start() {
    let mock = mock(100).await;
    let list = mock.get("/orders?_start=30&_limit=20").await;
    assert_eq!(list.ids(), (31..=50).collect::<Vec<_>>());
    assert_eq!(list.link("prev").as_deref(), Some("/orders?_limit=20&_start=10"));
    assert_eq!(list.link("next").as_deref(), Some("/orders?_limit=20&_start=50"));
}

#[tokio::test]
async fn a_page_behind_the_last_is_empty_and_leads_back() {
    let mock = mock(25).await;
    let list = mock.get("/customers?_page=99").await;
    assert_eq!((list.status, list.ids().len()), (200, 0));
    assert_eq!(list.link("prev").as_deref(), Some("/customers?_page=3"));
    assert_eq!(list.link("next"), None);
    let far = mock.get(&format!("/customers?_page={}&_limit=1000", u64::MAX)).await;
    assert_eq!((far.status, far.ids().len()), (200, 0));
}

#[tokio::test]
async fn an_empty_mock_has_empty_lists() {
    let mock = mock(0).await;
    for target in ["/customers", "/orders?_sort=-total", "/products?q=a", "/customers?_sort=-id&_page=3"] {
        let list = mock.get(target).await;
        assert_eq!((list.status, list.header("x-total-count"), list.body.trim()), (200, "0", "[]"), "{target}");
    }
}

#[tokio::test]
async fn ten_million_records_are_served_at_once_by_page_id_and_owner() {
    let mock = mock(10_000_000).await;
    let last = mock.get("/customers?_page=1000000").await;
    assert_eq!(last.ids().last(), Some(&10_000_000));
    assert_eq!(mock.get("/customers?_sort=-id&_limit=2").await.ids(), [10_000_000, 9_999_999]);
    let order = mock.get("/orders/9999999").await.json();
    let orders = mock.get(&format!("/customers/{}/orders", order["customer_id"])).await;
    assert!(orders.ids().contains(&9_999_999));
}

#[tokio::test]
async fn a_search_through_too_many_records_says_how_to_narrow_it() {
    let mock = mock(10_000_000).await;
    let problem = mock.get("/customers?city=Berlin").await.problem(422);
    assert!(problem.contains("id_gte"), "{problem}");
    let narrowed = mock.get("/customers?city=Berlin&id_gte=5000000&id_lt=5010000").await;
    assert_eq!(narrowed.status, 200);
    assert!(narrowed.ids().iter().all(|id| (5_000_000..5_010_000).contains(id)));
}

#[tokio::test]
async fn filters_reach_the_list_encoded_or_not() {
    let mock = mock(500).await;
    for target in
        ["/customers?city=Z%C3%BCrich&_limit=1000", "/customers?city=Cape+Town&_limit=1000", "/customers?city=Cape%20Town&_limit=1000"]
    {
        let list = mock.get(target).await;
        let cities = list.json();
        assert!(!list.ids().is_empty(), "{target}");
        assert!(cities.as_array().unwrap().iter().all(|record| ["Zürich", "Cape Town"].contains(&record["city"].as_str().unwrap())));
    }
}

#[tokio::test]
async fn a_record_has_a_tag_that_spares_the_second_answer() {
    let mock = mock(10).await;
    let record = mock.get("/customers/7").await;
    assert_eq!((record.status, &record.json()["id"]), (200, &json!(7)));
    let again = mock.with("GET /customers/7", &format!("If-None-Match: {}\r\n", record.header("etag")), "").await;
    assert_eq!((again.status, again.body.as_str(), again.header("etag")), (304, "", record.header("etag")));
    let other = mock.with("GET /customers/8", &format!("If-None-Match: {}\r\n", record.header("etag")), "").await;
    assert_eq!(other.status, 200);
}

#[tokio::test]
async fn head_answers_as_get_without_a_body_everywhere() {
    let mock = mock(10).await;
    for target in ["/", "/customers?city_ne=Berlin", "/customers/7", "/customers/1/orders", "/customers/77", "/customers?x=1", "/nowhere"] {
        let get = mock.get(target).await;
        let head = mock.with(&format!("HEAD {target}"), "", "").await;
        assert_eq!((head.status, head.body.as_str()), (get.status, ""), "{target}");
        for name in ["content-type", "content-length", "etag", "link", "x-total-count"] {
            assert_eq!(head.header(name), get.header(name), "{target} {name}");
        }
    }
}

#[tokio::test]
async fn a_created_record_is_found_where_location_says_and_in_lists() {
    let mock = mock(10).await;
    let made = mock.send("POST /customers", r#"{"name":"Ada","city":"Ulm","vip":true}"#).await;
    assert_eq!((made.status, made.header("location")), (201, "/customers/11"));
    assert_eq!(made.json(), json!({"id": 11, "name": "Ada", "city": "Ulm", "vip": true}));
    let read = mock.get(made.header("location")).await;
    assert_eq!((read.body.as_str(), read.header("etag")), (made.body.as_str(), made.header("etag")));
    assert_eq!(mock.get("/customers?city=Ulm").await.ids(), [11]);
    let list = mock.get("/customers?_page=2").await;
    assert_eq!((list.ids(), list.header("x-total-count")), (vec![11], "11"));
}

#[tokio::test]
async fn an_id_may_be_given_once() {
    let mock = mock(10).await;
    assert_eq!(mock.send("POST /orders", r#"{"id":500}"#).await.header("location"), "/orders/500");
    assert!(mock.send("POST /orders", r#"{"id":500}"#).await.problem(409).contains("PUT"));
    mock.send("POST /orders", r#"{"id":3}"#).await.problem(409);
    assert_eq!(mock.send("POST /orders", "{}").await.header("location"), "/orders/11");
}

#[tokio::test]
async fn an_id_that_is_none_is_refused() {
    let mock = mock(10).await;
    for id in ["0", "-1", "1.5", "\"7\"", "null", "9007199254740992", "1e30", "[]"] {
        mock.send("POST /orders", &format!("{{\"id\":{id}}}")).await.problem(400);
    }
}

#[tokio::test]
async fn a_deleted_record_vanishes_and_totals_follow() {
    let mock = mock(10).await;
    let gone = mock.send("DELETE /customers/4", "").await;
    assert_eq!((gone.status, gone.body.as_str()), (204, ""));
    mock.get("/customers/4").await.problem(404);
    mock.send("DELETE /customers/4", "").await.problem(404);
    let list = mock.get("/customers").await;
    assert_eq!((list.ids(), list.header("x-total-count")), (vec![1, 2, 3, 5, 6, 7, 8, 9, 10], "9"));
    assert!(!mock.get("/customers?_sort=name&q=a").await.ids().contains(&4));
    assert_eq!(mock.send("POST /customers", r#"{"id":4}"#).await.status, 201);
}

#[tokio::test]
async fn put_replaces_all_and_patch_merges() {
    let mock = mock(10).await;
    let put = mock.send("PUT /products/2", r#"{"name":"Cup","tags":{"a":1,"b":2}}"#).await;
    assert_eq!((put.status, put.json()), (200, json!({"id": 2, "name": "Cup", "tags": {"a": 1, "b": 2}})));
    let patched = mock.send("PATCH /products/2", r#"{"price":3.50,"tags":{"a":null,"c":{"d":null}}}"#).await;
    assert_eq!(patched.body.trim(), r#"{"id":2,"name":"Cup","tags":{"b":2,"c":{}},"price":3.50}"#);
    assert_eq!(mock.get("/products?price=3.5").await.ids(), [2]);
}

#[tokio::test]
async fn a_generated_record_can_be_patched() {
    let mock = mock(10).await;
    let before = mock.get("/customers/3").await.json();
    let after = mock.with("PATCH /customers/3", "Content-Type: application/merge-patch+json\r\n", r#"{"city":"Ulm"}"#).await.json();
    assert_eq!((&after["city"], &after["email"]), (&json!("Ulm"), &before["email"]));
}

#[tokio::test]
async fn nothing_that_is_not_there_can_be_changed() {
    let mock = mock(10).await;
    for line in ["PUT /orders/11", "PATCH /orders/11"] {
        mock.send(line, "{}").await.problem(404);
    }
    mock.send("DELETE /orders/11", "").await.problem(404);
}

#[tokio::test]
async fn an_id_never_changes() {
    let mock = mock(10).await;
    for (line, body) in [("PUT /orders/1", r#"{"id":2}"#), ("PATCH /orders/1", r#"{"id":2}"#), ("PATCH /orders/1", r#"{"id":null}"#)] {
        mock.send(line, body).await.problem(400);
    }
    assert_eq!(mock.send("PUT /orders/1", r#"{"id":1}"#).await.status, 200);
}

#[tokio::test]
async fn a_write_with_an_old_tag_is_refused() {
    let mock = mock(10).await;
    let tag = format!("If-Match: {}\r\n", mock.get("/orders/1").await.header("etag"));
    assert_eq!(mock.with("PATCH /orders/1", &tag, r#"{"status":"paid!"}"#).await.status, 200);
    for (line, body) in [("PUT /orders/1", "{}"), ("PATCH /orders/1", "{}"), ("DELETE /orders/1", "")] {
        mock.with(line, &tag, body).await.problem(412);
    }
    mock.with("GET /orders/1", &tag, "").await.problem(412);
    mock.with("PUT /orders/1", "If-None-Match: *\r\n", "{}").await.problem(412);
}

#[tokio::test]
async fn orders_of_a_customer_follow_every_change() {
    let mock = mock(50).await;
    let mine = mock.get("/customers/1/orders?_limit=1000").await;
    assert!(mine.json().as_array().unwrap().iter().all(|order| order["customer_id"] == 1));
    let first = mine.ids()[0];
    mock.send(&format!("PATCH /orders/{first}"), r#"{"customer_id":2}"#).await;
    mock.send("POST /orders", r#"{"customer_id":1,"status":"new"}"#).await;
    let now = mock.get("/customers/1/orders?_limit=1000").await.ids();
    assert!(!now.contains(&first) && now.contains(&51));
    assert_eq!(mock.get("/customers/1/orders?status=new").await.ids(), [51]);
    mock.send("POST /orders", r#"{"customer_id":1}"#).await;
    assert_eq!(mock.get("/customers/1/orders?_limit=1").await.link("next").unwrap(), "/customers/1/orders?_limit=1&_page=2");
}

#[tokio::test]
async fn only_customers_and_products_have_orders() {
    let mock = mock(10).await;
    mock.get("/customers/99/orders").await.problem(404);
    mock.get("/orders/1/orders").await.problem(404);
    mock.get("/customers/1/products").await.problem(404);
    assert_eq!(mock.get("/products/1/orders").await.status, 200);
}

#[tokio::test]
async fn options_and_wrong_methods_say_what_is_allowed() {
    let mock = mock(10).await;
    let cases = [
        ("/", "GET, HEAD, OPTIONS", "POST"),
        ("/customers", "GET, HEAD, POST, OPTIONS", "DELETE"),
        ("/customers/1", "GET, HEAD, PUT, PATCH, DELETE, OPTIONS", "POST"),
        ("/customers/1/orders", "GET, HEAD, OPTIONS", "PUT"),
        ("/customers", "GET, HEAD, POST, OPTIONS", "TRACE"),
        ("/customers", "GET, HEAD, POST, OPTIONS", "BREW"),
    ];
    for (target, allow, wrong) in cases {
        let options = mock.with(&format!("OPTIONS {target}"), "", "").await;
        assert_eq!((options.status, options.header("allow"), options.body.as_str()), (204, allow, ""));
        let refused = mock.with(&format!("{wrong} {target}"), "", "").await;
        refused.problem(405);
        assert_eq!(refused.header("allow"), allow);
    }
    assert_eq!(mock.with("OPTIONS *", "", "").await.status, 204);
    mock.with("OPTIONS /nowhere", "", "").await.problem(404);
}

#[tokio::test]
async fn paths_that_name_nothing_are_absent() {
    let mock = mock(10).await;
    for target in [
        "/items",
        "/customers/0",
        "/customers/07",
        "/customers/+7",
        "/customers/-1",
        "/customers/x",
        "//customers",
        "/customers//",
        "/customers/1/orders/1",
        "/customers/99999999999999999999",
        "/Customers",
    ] {
        mock.get(target).await.problem(404);
    }
    assert_eq!(mock.get("/customers/%37").await.json()["id"], 7);
    assert_eq!(mock.get("/customers/7/").await.json()["id"], 7);
}

#[tokio::test]
async fn bad_percent_encoding_is_refused_in_path_and_query() {
    let mock = mock(10).await;
    for target in ["/customers/%3", "/customers/%zz", "/customers?city=%", "/customers?city=%g0", "/customers?city=%ff", "/customers?%f=1"]
    {
        mock.get(target).await.problem(400);
    }
}

#[tokio::test]
async fn what_a_query_cannot_mean_is_refused_with_a_hint() {
    let mock = mock(10).await;
    let cases = [
        ("/customers?colour=red", "created_at"),
        ("/customers?_size=3", "_limit"),
        ("/customers?price_gte=3", "email"),
        ("/customers?_page=-1", "from 1"),
        ("/customers?_page=0", "from 1"),
        ("/customers?_page=+1", "from 1"),
        ("/customers?_page=99999999999999999999", "from 1"),
        ("/customers?_limit=1001", "1000"),
        ("/customers?_limit=0", "1000"),
        ("/customers?_limit=", "1000"),
        ("/customers?_start=-1", "from 0"),
        ("/customers?_page=1&_start=1", "one of them"),
        ("/customers?_page=1&_page=2", "Once"),
        ("/customers?_sort=colour", "created_at"),
        ("/customers?_sort=city,city", "Once"),
        ("/customers?_sort=city,", "created_at"),
        ("/customers?_sort=city&_order=up", "asc"),
        ("/customers?_sort=city,name&_order=asc", "asc"),
        ("/customers?_sort=-city&_order=asc", "minus"),
        ("/products?price_gte=cheap", "numbers"),
        ("/products?price=NaN", "numbers"),
        ("/products?price=inf", "numbers"),
        ("/products?price=1e999", "numbers"),
        ("/customers/1?x=1", "question mark"),
        ("/?x=1", "question mark"),
    ];
    for (target, hint) in cases {
        let problem = mock.get(target).await.problem(400);
        assert!(problem.contains(hint), "{target}: {problem}");
    }
    let many = vec!["city=a"; 65].join("&");
    assert!(mock.get(&format!("/customers?{many}")).await.problem(400).contains("64"));
}

#[tokio::test]
async fn bodies_that_are_no_objects_are_refused_and_change_nothing() {
    let mock = mock(10).await;
    for (body, why) in [
        ("{", "line 1"),
        ("[{}]", "an array"),
        ("7", "a number"),
        ("null", "null"),
        ("", "empty"),
        ("{} {}", "trailing"),
        ("{\"a\":\u{1}}", "JSON"),
    ] {
        let problem = mock.send("POST /customers", body).await.problem(400);
        assert!(problem.contains(why), "{body}: {problem}");
    }
    mock.send("POST /customers", &format!("{{\"a\":{}}}", "[".repeat(100_000))).await.problem(400);
    mock.send("PUT /customers/1", "[]").await.problem(400);
    mock.send("PATCH /customers/1", "[]").await.problem(400);
    assert_eq!(mock.get("/customers").await.header("x-total-count"), "10");
}

#[tokio::test]
async fn bodies_that_are_not_json_are_refused_by_type() {
    let mock = mock(10).await;
    for kind in ["application/x-www-form-urlencoded", "text/plain", "application/json-patch+json", "application/jsonx"] {
        let problem = mock.with("POST /customers", &format!("Content-Type: {kind}\r\n"), "{}").await.problem(415);
        assert!(problem.contains("--json"), "{problem}");
    }
    mock.with("POST /customers", "Content-Encoding: gzip\r\n", "{}").await.problem(415);
    for kind in ["application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json"] {
        assert_eq!(mock.with("POST /customers", &format!("Content-Type: {kind}\r\n"), "{}").await.status, 201);
    }
    assert_eq!(mock.with("POST /customers", "", "{}").await.status, 201);
}

#[tokio::test]
async fn a_giant_body_is_refused_whether_announced_chunked_or_held_back() {
    let mock = mock(10).await;
    let giant = format!("{{\"name\":\"{}\"}}", "x".repeat(2 << 20));
    mock.send("POST /customers", &giant).await.problem(413);
    let chunked = format!(
        "POST /customers HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{giant}\r\n0\r\n\r\n",
        giant.len()
    );
    mock.raw(&chunked).await.problem(413);
    // Nothing is sent behind this head: the answer must come instead of leave to send.
    mock.raw("POST /customers HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n")
        .await
        .problem(413);
    let fits = format!("{{\"name\":\"{}\"}}", "x".repeat((1 << 20) - 100));
    assert_eq!(mock.send("POST /customers", &fits).await.status, 201);
}

#[tokio::test]
async fn a_record_cannot_be_patched_beyond_the_size_of_a_body() {
    let mock = mock(10).await;
    let half = "x".repeat(600 << 10);
    assert_eq!(mock.send("PATCH /customers/1", &format!("{{\"a\":\"{half}\"}}")).await.status, 200);
    mock.send("PATCH /customers/1", &format!("{{\"b\":\"{half}\"}}")).await.problem(413);
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let mock = mock(10).await;
    let mut stream = mock.connect().await;
    let request = "GET /customers/1 HTTP/1.1\r\nHost: x\r\n\r\n";
    let last = "GET /customers/2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(format!("{request}{request}{last}").as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 3);
}

#[tokio::test]
async fn a_silent_connection_is_closed_before_and_between_requests() {
    let mock = served(Bounds { head: Duration::from_millis(100), ..BOUNDS }, 10).await;
    let mut text = String::new();
    mock.connect().await.read_to_string(&mut text).await.unwrap();
    let mut used = mock.connect().await;
    used.write_all(b"GET /customers/1 HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    used.read_to_string(&mut text).await.unwrap();
    assert!(text.ends_with("}\n"), "{text}");
    let mut slow = mock.connect().await;
    slow.write_all(b"GET /customers/1 HT").await.unwrap();
    let _ = slow.read_to_string(&mut text).await;
}

#[tokio::test]
async fn a_connection_over_the_limit_waits_for_one_to_end() {
    let mock = served(Bounds { connections: 1, ..BOUNDS }, 10).await;
    let mut first = mock.connect().await;
    first.write_all(b"GET /customers/1 HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut byte = [0];
    first.read_exact(&mut byte).await.unwrap();
    let mut second = mock.connect().await;
    second.write_all(b"GET /customers/2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(timeout(Duration::from_millis(100), second.read_exact(&mut byte)).await.is_err());
    drop(first);
    let mut text = String::new();
    second.read_to_string(&mut text).await.unwrap();
    assert!(text.contains("200 OK"), "{text}");
}

#[tokio::test]
async fn a_connection_ends_with_its_life() {
    let mock = served(Bounds { life: Duration::from_millis(50), drain: Duration::from_millis(50), ..BOUNDS }, 10).await;
    let mut stream = mock.connect().await;
    stream.write_all(b"POST /customers HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n").await.unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text).await;
    assert_eq!(text, "");
}

#[tokio::test]
async fn told_to_stop_it_ends_idle_connections_and_itself() {
    let mut mock = mock(10).await;
    let mut idle = mock.connect().await;
    idle.write_all(b"GET /customers/1 HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut byte = [0];
    idle.read_exact(&mut byte).await.unwrap();
    mock.stop.take().unwrap().send(()).unwrap();
    (&mut mock.task).await.unwrap();
    let mut rest = String::new();
    idle.read_to_string(&mut rest).await.unwrap();
    assert!(TcpStream::connect(mock.address).await.is_err());
}

#[tokio::test]
async fn to_stop_waits_for_the_request_in_flight() {
    let mut mock = mock(10).await;
    let mut stream = mock.connect().await;
    stream.write_all(b"POST /customers HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await.unwrap();
    let mut leave = [0; 25];
    stream.read_exact(&mut leave).await.unwrap();
    assert_eq!(&leave, b"HTTP/1.1 100 Continue\r\n\r\n");
    mock.stop.take().unwrap().send(()).unwrap();
    stream.write_all(b"{}").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.contains("201 Created"), "{text}");
    (&mut mock.task).await.unwrap();
}

#[tokio::test]
async fn others_are_served_while_a_big_search_runs() {
    // One thread serves all: a search that did not yield would answer first.
    let mock = mock(1_000_000).await;
    let mut search = mock.connect().await;
    search.write_all(b"GET /customers?_sort=name&q=zzz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut small = mock.connect().await;
    small.write_all(b"GET /customers/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let (mut text, mut byte) = (String::new(), [0]);
    tokio::select! {
        biased;
        _ = search.read_exact(&mut byte) => panic!("the search came first"),
        read = small.read_to_string(&mut text) => assert!(read.is_ok() && text.contains("200 OK")),
    }
}

/// A parser that hands text inside such an object to a parser of its own starts counting depth anew each time.
#[tokio::test]
async fn json_that_hides_its_depth_from_the_parser_is_refused() {
    let mock = mock(10).await;
    let mut body = String::from("1");
    for _ in 0..250 {
        let quoted = body.replace('\\', "\\u005c").replace('"', "\\u0022");
        let deep = 120;
        body = format!("{}{{\"$serde_json::private::RawValue\":\"{quoted}\"}}{}", "[".repeat(deep), "]".repeat(deep));
    }
    let body = format!("{{\"a\":{body}}}");
    assert!(body.len() < 1 << 20);
    mock.send("POST /customers", &body).await.problem(400);
    let hidden = r#"{"a":{"\u0024serde\u005fjson::private::Number":"1"}}"#;
    mock.send("POST /customers", hidden).await.problem(400);
}
