//! Word lists of the demonstration business: a chain that sells coffee, food and things for the home.

/// (name, IANA zone, currency) of the locations, in the order in which they are taken.
pub const PLACES: &[(&str, &str, &str)] = &[
    ("Berlin Kreuzberg", "Europe/Berlin", "EUR"),
    ("Brooklyn Heights", "America/New_York", "USD"),
    ("Lisboa Chiado", "Europe/Lisbon", "EUR"),
    ("Hamburg Altona", "Europe/Berlin", "EUR"),
    ("Boston Back Bay", "America/New_York", "USD"),
    ("Porto Ribeira", "Europe/Lisbon", "EUR"),
    ("Köln Ehrenfeld", "Europe/Berlin", "EUR"),
    ("Philadelphia Old City", "America/New_York", "USD"),
    ("Braga Centro", "Europe/Lisbon", "EUR"),
    ("München Au", "Europe/Berlin", "EUR"),
    ("Hartford Downtown", "America/New_York", "USD"),
    ("Leipzig Südvorstadt", "Europe/Berlin", "EUR"),
    ("Baltimore Harbor", "America/New_York", "USD"),
    ("Coimbra Baixa", "Europe/Lisbon", "EUR"),
    ("Dresden Neustadt", "Europe/Berlin", "EUR"),
    ("Providence Wharf", "America/New_York", "USD"),
    ("Bremen Viertel", "Europe/Berlin", "EUR"),
    ("Albany Lark Street", "America/New_York", "USD"),
    ("Stuttgart West", "Europe/Berlin", "EUR"),
    ("Pittsburgh Strip", "America/New_York", "USD"),
];

/// A shelf of the chain: what is on it and how it is sold.
pub struct Shelf {
    pub category: &'static str,
    pub code: &'static str,
    pub is_food: bool,
    /// Sold by weight where the option says so.
    pub is_measured: bool,
    pub makers: &'static [&'static str],
    pub things: &'static [&'static str],
    pub options: [&'static str; 4],
    /// Lowest and highest price of the smallest option in minor units.
    pub price: (i64, i64),
}

pub const SHELVES: &[Shelf] = &[
    Shelf {
        category: "Coffee and tea",
        code: "COF",
        is_food: true,
        is_measured: false,
        makers: &["Harbour", "Nordlicht", "Alma", "Early Bird", "Mondego"],
        things: &["Espresso Beans", "Filter Roast", "Decaf Blend", "Earl Grey", "Green Sencha", "Chai Mix"],
        options: ["125 g", "250 g", "500 g", "1 kg"],
        price: (349, 899),
    },
    Shelf {
        category: "Fresh counter",
        code: "FRE",
        is_food: true,
        is_measured: true,
        makers: &["Hillside", "Weidehof", "Serra", "Old Mill"],
        things: &["Mountain Cheese", "Olives", "Smoked Ham", "Roasted Almonds", "Dried Figs"],
        options: ["mild", "aged", "with herbs", "organic"],
        price: (890, 3490),
    },
    Shelf {
        category: "Bakery",
        code: "BAK",
        is_food: true,
        is_measured: false,
        makers: &["Stone Oven", "Kornblume", "Padaria"],
        things: &["Rye Loaf", "Sourdough", "Custard Tart", "Seeded Roll", "Cinnamon Swirl", "Butter Croissant"],
        options: ["single", "pack of two", "pack of four", "family size"],
        price: (95, 420),
    },
    Shelf {
        category: "Pantry",
        code: "PAN",
        is_food: true,
        is_measured: false,
        makers: &["Solana", "Kastanie", "Blue Door", "Field Row"],
        things: &["Olive Oil", "Tomato Passata", "Linden Honey", "Wholegrain Pasta", "Sea Salt", "Apple Vinegar"],
        options: ["mini", "regular", "large", "refill"],
        price: (129, 790),
    },
    Shelf {
        category: "Kitchen",
        code: "KIT",
        is_food: false,
        is_measured: false,
        makers: &["Ferro", "Tischlein", "Copperline", "Lume"],
        things: &["Enamel Mug", "Chef Knife", "Cutting Board", "Mixing Bowl", "Linen Apron", "Moka Pot"],
        options: ["white", "slate", "ochre", "forest"],
        price: (790, 5490),
    },
    Shelf {
        category: "Home",
        code: "HOM",
        is_food: false,
        is_measured: false,
        makers: &["Stilleben", "Casa Nove", "Drift", "Loom & Co"],
        things: &["Wool Throw", "Beeswax Candle", "Cotton Towel", "Glass Vase", "Storage Basket", "Desk Lamp"],
        options: ["small", "medium", "large", "set"],
        price: (590, 6900),
    },
    Shelf {
        category: "Garden",
        code: "GAR",
        is_food: false,
        is_measured: false,
        makers: &["Gruenspan", "Quintal", "Back Porch"],
        things: &["Herb Seeds", "Terracotta Pot", "Hand Trowel", "Watering Can", "Bird Feeder"],
        options: ["classic", "compact", "sturdy", "gift box"],
        price: (249, 3490),
    },
    Shelf {
        category: "Paper and play",
        code: "PAP",
        is_food: false,
        is_measured: false,
        makers: &["Blatt", "Papelaria 9", "Corner Press", "Kite"],
        things: &["Dot Notebook", "Gel Pen", "Greeting Card", "Wooden Puzzle", "Card Game", "Wall Calendar"],
        options: ["red", "blue", "yellow", "mixed"],
        price: (149, 2490),
    },
    Shelf {
        category: "Care",
        code: "CAR",
        is_food: false,
        is_measured: false,
        makers: &["Seife & Sohn", "Alecrim", "Plain"],
        things: &["Olive Soap", "Hand Cream", "Shampoo Bar", "Bath Salt", "Lip Balm"],
        options: ["lavender", "rosemary", "citrus", "unscented"],
        price: (290, 1690),
    },
];

/// Why a line was discounted, as a cashier would pick it.
pub const DISCOUNT_REASONS: &[&str] = &["damaged_packaging", "best_before_soon", "weekend_offer", "price_match"];

/// Brands on a card tender.
pub const CARD_BRANDS: &[&str] = &["visa", "mastercard", "girocard", "maestro"];
