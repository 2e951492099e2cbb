//! The words that sample records are made of. Reordering or changing a list changes everyone's data, and the golden
//! test of `data` says so. First and last names are ASCII, because addresses are made of them; cities are not, so that
//! a client meets UTF-8.

/// Given names.
pub const FIRST: [&str; 40] = [
    "Ada", "Amara", "Anton", "Beatriz", "Carlos", "Chen", "Clara", "Dario", "Elena", "Emil", "Fatima", "Felix", "Freya", "Goran", "Hana",
    "Hugo", "Ines", "Ivan", "Jamal", "Jonas", "Kaito", "Lena", "Liam", "Linh", "Lucia", "Mara", "Mateo", "Mila", "Nadia", "Nils", "Noor",
    "Olga", "Omar", "Priya", "Rafael", "Rosa", "Samir", "Sofia", "Tariq", "Yuki",
];

/// Family names.
pub const LAST: [&str; 40] = [
    "Almeida",
    "Andersen",
    "Bauer",
    "Becker",
    "Bianchi",
    "Castro",
    "Dubois",
    "Eriksen",
    "Fischer",
    "Garcia",
    "Haddad",
    "Hansen",
    "Ivanova",
    "Jansen",
    "Kapoor",
    "Keller",
    "Kim",
    "Kowalski",
    "Larsen",
    "Leroy",
    "Lindgren",
    "Lopez",
    "Mbeki",
    "Moreau",
    "Nakamura",
    "Nguyen",
    "Novak",
    "Okafor",
    "Olsen",
    "Papadakis",
    "Patel",
    "Petrov",
    "Rossi",
    "Sato",
    "Schmidt",
    "Silva",
    "Tanaka",
    "Vargas",
    "Weber",
    "Yilmaz",
];

/// First word of a company.
pub const FIRM: [&str; 24] = [
    "Alpine", "Amber", "Atlas", "Baltic", "Beacon", "Birch", "Bright", "Cedar", "Cobalt", "Copper", "Coral", "Delta", "Ember", "Falcon",
    "Granite", "Harbor", "Juniper", "Lunar", "Maple", "Meridian", "Nordic", "Orchard", "Summit", "Willow",
];

/// Second word of a company.
pub const TRADE: [&str; 16] = [
    "Analytics",
    "Bakery",
    "Consulting",
    "Energy",
    "Foods",
    "Freight",
    "Insurance",
    "Interiors",
    "Labs",
    "Logistics",
    "Media",
    "Optics",
    "Robotics",
    "Studios",
    "Systems",
    "Textiles",
];

/// Where customers live: city and country.
pub const CITIES: [(&str, &str); 32] = [
    ("Amsterdam", "Netherlands"),
    ("Athens", "Greece"),
    ("Barcelona", "Spain"),
    ("Berlin", "Germany"),
    ("Bogotá", "Colombia"),
    ("Buenos Aires", "Argentina"),
    ("Cape Town", "South Africa"),
    ("Copenhagen", "Denmark"),
    ("Dublin", "Ireland"),
    ("Hamburg", "Germany"),
    ("Hanoi", "Vietnam"),
    ("Helsinki", "Finland"),
    ("İzmir", "Türkiye"),
    ("Kraków", "Poland"),
    ("Kyoto", "Japan"),
    ("Lagos", "Nigeria"),
    ("Lisbon", "Portugal"),
    ("Ljubljana", "Slovenia"),
    ("Lyon", "France"),
    ("Mumbai", "India"),
    ("Munich", "Germany"),
    ("Nairobi", "Kenya"),
    ("Oslo", "Norway"),
    ("Paris", "France"),
    ("Prague", "Czechia"),
    ("São Paulo", "Brazil"),
    ("Seoul", "South Korea"),
    ("Stockholm", "Sweden"),
    ("Tokyo", "Japan"),
    ("Toronto", "Canada"),
    ("Turin", "Italy"),
    ("Zürich", "Switzerland"),
];

/// First word of a product.
pub const MANNER: [&str; 16] = [
    "Classic", "Compact", "Deluxe", "Everyday", "Foldable", "Handmade", "Heavy", "Light", "Modern", "Portable", "Quiet", "Rugged",
    "Simple", "Slim", "Smart", "Vintage",
];

/// One kind of product: its category, its things, and the whole units of money that they cost, from and to.
pub struct Shelf {
    /// The category's name.
    pub category: &'static str,
    /// What is sold there.
    pub things: [&'static str; 6],
    /// The least price, in whole units.
    pub least: u64,
    /// The greatest price, in whole units.
    pub most: u64,
}

/// What is for sale.
pub const SHELVES: [Shelf; 8] = [
    Shelf { category: "books", things: ["Atlas", "Cookbook", "Diary", "Novel", "Field Guide", "Sketchbook"], least: 6, most: 60 },
    Shelf { category: "electronics", things: ["Camera", "Headphones", "Keyboard", "Lamp", "Radio", "Speaker"], least: 25, most: 900 },
    Shelf { category: "furniture", things: ["Bench", "Bookcase", "Chair", "Desk", "Sofa", "Stool"], least: 40, most: 1800 },
    Shelf { category: "garden", things: ["Hose", "Planter", "Pruner", "Rake", "Spade", "Watering Can"], least: 8, most: 120 },
    Shelf { category: "kitchen", things: ["Grinder", "Kettle", "Knife", "Pan", "Teapot", "Toaster"], least: 10, most: 250 },
    Shelf { category: "sports", things: ["Bicycle", "Helmet", "Jump Rope", "Racket", "Tent", "Yoga Mat"], least: 9, most: 1200 },
    Shelf { category: "tools", things: ["Drill", "Hammer", "Saw", "Screwdriver", "Toolbox", "Workbench"], least: 7, most: 400 },
    Shelf { category: "toys", things: ["Blocks", "Kite", "Puzzle", "Robot", "Train Set", "Yo-yo"], least: 5, most: 150 },
];

/// What prices end in, in hundredths.
pub const ENDINGS: [u64; 6] = [0, 25, 50, 90, 95, 99];

/// What products are priced in.
pub const CURRENCIES: [&str; 3] = ["EUR", "GBP", "USD"];

/// What becomes of orders; the frequent ones are there more than once.
pub const STATUSES: [&str; 8] = ["pending", "paid", "shipped", "shipped", "delivered", "delivered", "delivered", "cancelled"];

/// Where customers have their mail: names that RFC 2606 reserves, so that nobody is ever written to.
pub const MAIL: [&str; 3] = ["example.com", "example.net", "example.org"];
