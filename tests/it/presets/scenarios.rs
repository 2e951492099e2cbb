//! One scenario for each preset: what a client asks, and what then arrives, to the letter of the vendor's documentation.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::judge::{Pair, Sign};

/// What an upstream and an issuer of this preset must see.
pub struct Scenario {
    pub preset: &'static str,
    /// Variables and their values. What holds `hunter2` is a secret.
    pub variables: Vec<(&'static str, String)>,
    /// The base URL that the variables lead to.
    pub base: &'static str,
    /// What a client asks behind `/r/<preset>`: method, target, body.
    pub asks: (&'static str, &'static str, &'static str),
    /// The target that arrives.
    pub sees: &'static str,
    /// Method, target and body of the preset's own test.
    pub probe: (&'static str, &'static str, &'static str),
    /// Every field that the preset is responsible for.
    pub fields: Vec<(&'static str, String)>,
    /// Who signs, where that is not a field that can be written down.
    pub sign: Option<Sign>,
    /// The call that fetches the token.
    pub token: Option<TokenCall>,
    /// What a person goes through first.
    pub consent: Option<Consent>,
}

/// A consent: where the browser is sent, with which parameters, and what it brings back beside the state.
pub struct Consent {
    pub authorize: &'static str,
    pub asks: Vec<(&'static str, &'static str)>,
    pub back: &'static str,
}

/// A call to an issuer.
pub struct TokenCall {
    pub path: &'static str,
    pub authorization: Option<String>,
    /// The form, sorted by name; `*` is a value that differs from time to time.
    pub form: Vec<(&'static str, String)>,
}

/// A secret of a preset.
fn secret(preset: &str) -> String {
    format!("hunter2-{preset}")
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A scenario in which a GET with one `Authorization` suffices.
fn plain(preset: &'static str, base: &'static str, ask: &'static str, probe: &'static str) -> Scenario {
    Scenario {
        preset,
        variables: Vec::new(),
        base,
        asks: ("GET", ask, ""),
        sees: ask,
        probe: ("GET", probe, ""),
        fields: Vec::new(),
        sign: None,
        token: None,
        consent: None,
    }
}

const GRAPHQL: &str = r#"{"query":"{ teams { nodes { id } } }"}"#;

/// All of them. `keys` are the two halves of the key pair of a service account, `issuer` its token endpoint.
pub fn all(keys: &Pair) -> Vec<Scenario> {
    let mut all = tokens(keys);
    all.extend(fixed());
    all.extend(signed());
    all
}

/// Presets whose credential never changes.
fn fixed() -> Vec<Scenario> {
    let s = secret;
    let authorization = |value: String| ("authorization", value);
    vec![
        Scenario {
            variables: vec![("GITHUB_TOKEN", s("github"))],
            fields: vec![
                authorization(format!("Bearer {}", s("github"))),
                ("accept", "application/vnd.github+json".into()),
                ("x-github-api-version", "2022-11-28".into()),
            ],
            ..plain("github", "https://api.github.com", "/repos/o/r/issues?per_page=2", "/rate_limit")
        },
        Scenario {
            variables: vec![("OPENAI_API_KEY", s("openai"))],
            sees: "/v1/models/gpt",
            fields: vec![authorization(format!("Bearer {}", s("openai")))],
            ..plain("openai", "https://api.openai.com/v1", "/models/gpt", "/v1/models")
        },
        Scenario {
            variables: vec![("STRIPE_SECRET_KEY", s("stripe"))],
            fields: vec![authorization(basic(&s("stripe"), ""))],
            ..plain("stripe", "https://api.stripe.com", "/v1/charges?limit=3", "/v1/balance")
        },
        Scenario {
            variables: vec![("ANTHROPIC_API_KEY", s("anthropic"))],
            asks: ("POST", "/v1/messages", r#"{"model":"m","max_tokens":1,"messages":[]}"#),
            sees: "/v1/messages",
            fields: vec![("x-api-key", s("anthropic")), ("anthropic-version", "2023-06-01".into())],
            ..plain("anthropic", "https://api.anthropic.com", "", "/v1/models")
        },
        Scenario {
            variables: vec![("NOTION_ACCESS_TOKEN", s("notion"))],
            fields: vec![authorization(format!("Bearer {}", s("notion"))), ("notion-version", "2026-03-11".into())],
            ..plain("notion", "https://api.notion.com", "/v1/pages/1", "/v1/users")
        },
        Scenario {
            variables: vec![("LINEAR_API_KEY", s("linear"))],
            asks: ("POST", "/graphql", GRAPHQL),
            sees: "/graphql",
            probe: ("POST", "/graphql", r#"{"query":"{ viewer { id } }"}"#),
            // No scheme word at all.
            fields: vec![authorization(s("linear"))],
            ..plain("linear", "https://api.linear.app", "", "")
        },
        Scenario {
            variables: vec![("OKTA_CLIENT_ORGURL", "https://acme.okta.com/".into()), ("OKTA_CLIENT_TOKEN", s("okta"))],
            fields: vec![authorization(format!("SSWS {}", s("okta"))), ("accept", "application/json".into())],
            ..plain("okta", "https://acme.okta.com", "/api/v1/groups", "/api/v1/users?limit=1")
        },
        Scenario {
            variables: vec![("PAGERDUTY_API_KEY", s("pagerduty"))],
            fields: vec![
                authorization(format!("Token token={}", s("pagerduty"))),
                ("accept", "application/vnd.pagerduty+json;version=2".into()),
            ],
            ..plain("pagerduty", "https://api.pagerduty.com", "/incidents?statuses[]=triggered", "/users")
        },
        Scenario {
            variables: vec![("DISCORD_TOKEN", s("discord")), ("DISCORD_BOT_URL", "https://bot.example".into())],
            sees: "/api/v10/channels/1/messages",
            fields: vec![authorization(format!("Bot {}", s("discord"))), ("user-agent", "DiscordBot (https://bot.example, 1)".into())],
            ..plain("discord", "https://discord.com/api/v10", "/channels/1/messages", "/api/v10/users/@me")
        },
        Scenario {
            variables: vec![("DD_API_KEY", s("datadog-api")), ("DD_APP_KEY", s("datadog-app")), ("DD_SITE", "us5.datadoghq.com".into())],
            fields: vec![("dd-api-key", s("datadog-api")), ("dd-application-key", s("datadog-app"))],
            ..plain("datadog", "https://api.us5.datadoghq.com", "/api/v1/monitor", "/api/v1/validate")
        },
        Scenario {
            variables: vec![
                ("ZENDESK_SUBDOMAIN", "acme".into()),
                ("ZENDESK_EMAIL", "jdoe@example.com".into()),
                ("ZENDESK_API_TOKEN", s("zendesk")),
            ],
            fields: vec![authorization(basic("jdoe@example.com/token", &s("zendesk")))],
            ..plain("zendesk", "https://acme.zendesk.com", "/api/v2/tickets.json", "/api/v2/users.json")
        },
        Scenario {
            variables: vec![("MAILGUN_API_KEY", s("mailgun"))],
            asks: ("POST", "/v3/example.com/messages", "from=a%40example.com&to=b%40example.com"),
            sees: "/v3/example.com/messages",
            fields: vec![authorization(basic("api", &s("mailgun")))],
            ..plain("mailgun", "https://api.mailgun.net", "", "/v4/domains")
        },
        Scenario {
            variables: vec![("TWILIO_ACCOUNT_SID", "AC0123".into()), ("TWILIO_AUTH_TOKEN", s("twilio"))],
            asks: ("POST", "/Messages.json", "To=%2B15550100&Body=hi"),
            sees: "/2010-04-01/Accounts/AC0123/Messages.json",
            fields: vec![authorization(basic("AC0123", &s("twilio")))],
            ..plain("twilio", "https://api.twilio.com/2010-04-01/Accounts/AC0123", "", "/2010-04-01/Accounts/AC0123")
        },
        Scenario {
            variables: vec![("SHOPIFY_SHOP", "acme.myshopify.com".into()), ("SHOPIFY_ACCESS_TOKEN", s("shopify"))],
            asks: ("POST", "/graphql.json", GRAPHQL),
            sees: "/admin/api/2026-04/graphql.json",
            probe: ("POST", "/admin/api/2026-04/graphql.json", r#"{"query":"{ shop { name } }"}"#),
            fields: vec![("x-shopify-access-token", s("shopify"))],
            ..plain("shopify", "https://acme.myshopify.com/admin/api/2026-04", "", "")
        },
        Scenario {
            // The colon of a token stays one in the path.
            variables: vec![("TELEGRAM_BOT_TOKEN", "123456:hunter2-telegram".into())],
            asks: ("POST", "/sendMessage", "chat_id=1&text=hi"),
            sees: "/bot123456:hunter2-telegram/sendMessage",
            ..plain("telegram", "https://api.telegram.org/bot{token}", "", "/bot123456:hunter2-telegram/getMe")
        },
        Scenario {
            variables: vec![("OPENWEATHER_API_KEY", s("openweather"))],
            sees: "/data/2.5/forecast?q=London,uk&appid=hunter2-openweather",
            ..plain(
                "openweather",
                "https://api.openweathermap.org",
                "/data/2.5/forecast?q=London,uk",
                "/data/2.5/weather?lat=44.34&lon=10.99&appid=hunter2-openweather",
            )
        },
    ]
}

/// Presets that sign each request.
fn signed() -> Vec<Scenario> {
    let s = secret;
    vec![
        Scenario {
            variables: vec![("MONGODB_ATLAS_PUBLIC_KEY", "publickey".into()), ("MONGODB_ATLAS_PRIVATE_KEY", s("atlas"))],
            fields: vec![("accept", "application/vnd.atlas.2025-03-12+json".into())],
            sign: Some(Sign::Digest { user: "publickey", password: s("atlas") }),
            ..plain("mongodb-atlas", "https://cloud.mongodb.com", "/api/atlas/v2/groups/1/clusters?pretty=true", "/api/atlas/v2/groups")
        },
        Scenario {
            variables: vec![
                ("AWS_REGION", "eu-west-1".into()),
                ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE".into()),
                ("AWS_SECRET_ACCESS_KEY", s("s3-key")),
                ("AWS_SESSION_TOKEN", s("s3-session")),
            ],
            fields: vec![("x-amz-security-token", s("s3-session"))],
            sign: Some(Sign::Aws { id: "AKIDEXAMPLE", key: s("s3-key"), region: "eu-west-1", service: "s3" }),
            ..plain("aws-s3", "https://s3.eu-west-1.amazonaws.com", "/bucket/a%20b?list-type=2&prefix=x", "/")
        },
        Scenario {
            variables: vec![
                ("NETSUITE_ACCOUNT_ID", "123456_SB1".into()),
                ("NETSUITE_CONSUMER_KEY", "consumer".into()),
                ("NETSUITE_CONSUMER_SECRET", s("netsuite-cs")),
                ("NETSUITE_TOKEN_ID", "token".into()),
                ("NETSUITE_TOKEN_SECRET", s("netsuite-ts")),
            ],
            sign: Some(Sign::OAuth1 { realm: "123456_SB1", consumer: ("consumer", s("netsuite-cs")), token: ("token", s("netsuite-ts")) }),
            ..plain(
                "netsuite",
                "https://123456-sb1.suitetalk.api.netsuite.com",
                "/services/rest/record/v1/customer?q=id%20EQUAL%205&limit=10",
                "/services/rest/record/v1/metadata-catalog",
            )
        },
    ]
}

/// Presets whose tokens an issuer hands out.
fn tokens(keys: &Pair) -> Vec<Scenario> {
    let s = secret;
    let minted = |preset: &str| vec![("authorization", format!("Bearer minted-{preset}"))];
    let client = |names: [&'static str; 2], preset: &str| vec![(names[0], format!("{preset}-id")), (names[1], secret(preset))];
    let key = json!({
        "type": "service_account", "client_email": "robot@project.example", "private_key": keys.private, "private_key_id": "kid-1",
        "token_uri": "{issuer}/google/token", "note": "hunter2",
    });
    vec![
        Scenario {
            variables: [
                vec![("AZURE_TENANT_ID", "contoso.onmicrosoft.com".into())],
                client(["AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"], "graph"),
            ]
            .concat(),
            fields: minted("microsoft-graph"),
            token: Some(TokenCall {
                path: "/contoso.onmicrosoft.com/oauth2/v2.0/token",
                authorization: None,
                form: vec![
                    ("client_id", "graph-id".into()),
                    ("client_secret", s("graph")),
                    ("grant_type", "client_credentials".into()),
                    ("scope", "https://graph.microsoft.com/.default".into()),
                ],
            }),
            ..plain("microsoft-graph", "https://graph.microsoft.com", "/v1.0/users?$top=5", "/v1.0/organization")
        },
        Scenario {
            variables: client(["SPOTIFY_CLIENT_ID", "SPOTIFY_CLIENT_SECRET"], "spotify"),
            sees: "/v1/artists/1/albums",
            fields: minted("spotify"),
            token: Some(TokenCall {
                path: "/api/token",
                authorization: Some(basic("spotify-id", &s("spotify"))),
                form: vec![("grant_type", "client_credentials".into())],
            }),
            ..plain("spotify", "https://api.spotify.com/v1", "/artists/1/albums", "/v1/search?q=abba&type=artist&limit=1")
        },
        Scenario {
            variables: [
                client(["PAYPAL_CLIENT_ID", "PAYPAL_CLIENT_SECRET"], "paypal"),
                vec![("PAYPAL_HOST", "api-m.sandbox.paypal.com".into())],
            ]
            .concat(),
            fields: minted("paypal"),
            token: Some(TokenCall {
                path: "/v1/oauth2/token",
                authorization: Some(basic("paypal-id", &s("paypal"))),
                form: vec![("grant_type", "client_credentials".into())],
            }),
            ..plain("paypal", "https://api-m.sandbox.paypal.com", "/v2/checkout/orders/1", "/v1/notifications/webhooks-event-types")
        },
        Scenario {
            variables: [vec![("ZOOM_ACCOUNT_ID", "acc-1".into())], client(["ZOOM_CLIENT_ID", "ZOOM_CLIENT_SECRET"], "zoom")].concat(),
            sees: "/v2/users/me/meetings",
            fields: minted("zoom"),
            token: Some(TokenCall {
                path: "/oauth/token",
                authorization: Some(basic("zoom-id", &s("zoom"))),
                form: vec![("account_id", "acc-1".into()), ("grant_type", "account_credentials".into())],
            }),
            ..plain("zoom", "https://api.zoom.us/v2", "/users/me/meetings", "/v2/users?page_size=1")
        },
        Scenario {
            variables: [vec![("SALESFORCE_DOMAIN", "acme".into())], client(["SALESFORCE_CLIENT_ID", "SALESFORCE_CLIENT_SECRET"], "sf")]
                .concat(),
            fields: minted("salesforce"),
            token: Some(TokenCall {
                path: "/services/oauth2/token",
                authorization: None,
                form: vec![("client_id", "sf-id".into()), ("client_secret", s("sf")), ("grant_type", "client_credentials".into())],
            }),
            ..plain("salesforce", "{{ captured.instance }}", "/services/data/v66.0/sobjects/Account", "/services/data/latest")
        },
        Scenario {
            variables: client(["QUICKBOOKS_CLIENT_ID", "QUICKBOOKS_CLIENT_SECRET"], "qb"),
            sees: "/v3/company/77/invoice/1?minorversion=75",
            fields: [minted("quickbooks"), vec![("accept", "application/json".into())]].concat(),
            token: Some(TokenCall {
                path: "/oauth2/v1/tokens/bearer",
                authorization: Some(basic("qb-id", &s("qb"))),
                form: vec![("code", "the-code".into()), ("grant_type", "authorization_code".into()), ("redirect_uri", "*".into())],
            }),
            consent: Some(Consent {
                authorize: "https://appcenter.intuit.com/connect/oauth2?",
                asks: vec![("client_id", "qb-id"), ("response_type", "code"), ("scope", "com.intuit.quickbooks.accounting")],
                back: "code=the-code&realmId=77",
            }),
            ..plain(
                "quickbooks",
                "https://{{ vars.host }}/v3/company/{{ captured.realm }}",
                "/invoice/1?minorversion=75",
                "/v3/company/77/query?query=select%20*%20from%20CompanyInfo",
            )
        },
        Scenario {
            variables: [
                client(["HUBSPOT_CLIENT_ID", "HUBSPOT_CLIENT_SECRET"], "hs"),
                vec![("HUBSPOT_SCOPES", "oauth crm.objects.contacts.read".into())],
            ]
            .concat(),
            fields: minted("hubspot"),
            token: Some(TokenCall {
                path: "/oauth/2026-03/token",
                authorization: None,
                form: vec![
                    ("client_id", "hs-id".into()),
                    ("client_secret", s("hs")),
                    ("code", "the-code".into()),
                    ("code_verifier", "*".into()),
                    ("grant_type", "authorization_code".into()),
                    ("redirect_uri", "*".into()),
                ],
            }),
            consent: Some(Consent {
                authorize: "https://app.hubspot.com/oauth/authorize?",
                asks: vec![("client_id", "hs-id"), ("scope", "oauth crm.objects.contacts.read"), ("code_challenge_method", "S256")],
                back: "code=the-code",
            }),
            ..plain("hubspot", "https://api.hubapi.com", "/crm/v3/objects/companies?limit=10", "/crm/v3/objects/contacts?limit=1")
        },
        Scenario {
            variables: vec![("GOOGLE_SERVICE_ACCOUNT_KEY", key.to_string()), ("GOOGLE_SUBJECT", "alice@example.com".into())],
            fields: minted("google-drive"),
            sign: Some(Sign::Assertion {
                public: keys.public.clone(),
                issuer: "robot@project.example",
                subject: "alice@example.com",
                scope: "https://www.googleapis.com/auth/drive",
            }),
            token: Some(TokenCall { path: "/google/token", authorization: None, form: Vec::new() }),
            ..plain("google-drive", "https://www.googleapis.com", "/drive/v3/files?pageSize=10", "/drive/v3/about?fields=user")
        },
    ]
}
