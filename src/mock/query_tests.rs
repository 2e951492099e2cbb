use super::*;

const HERE: Collection = Collection::Products;

fn one(raw: &str) -> Filter {
    Query::new(HERE, raw).unwrap().filters.remove(0)
}

fn text(text: &str) -> Cell<'_> {
    Cell::Text(text.into())
}

#[test]
fn numbers_compare_as_numbers() {
    assert!(one("price_gte=9").admits(&Cell::Number(10.0)));
    assert!(!one("price_lt=9").admits(&Cell::Number(10.0)));
    assert!(one("price=10.00").admits(&Cell::Number(10.0)));
    assert!(one("price_lte=1e1").admits(&Cell::Number(10.0)));
}

#[test]
fn every_comparison_holds_exactly_where_it_should() {
    let holds = |raw: &str| [4.0, 5.0, 6.0].map(|price| one(raw).admits(&Cell::Number(price)));
    assert_eq!(holds("price=5"), [false, true, false]);
    assert_eq!(holds("price_ne=5"), [true, false, true]);
    assert_eq!(holds("price_gt=5"), [false, false, true]);
    assert_eq!(holds("price_gte=5"), [false, true, true]);
    assert_eq!(holds("price_lt=5"), [true, false, false]);
    assert_eq!(holds("price_lte=5"), [true, true, false]);
}

#[test]
fn a_repeated_field_means_any_of_and_repeated_exclusions_mean_none_of() {
    assert!(one("category=toys&category=books").admits(&text("books")));
    assert!(!one("category=toys&category=books").admits(&text("tools")));
    assert!(!one("category_ne=toys&category_ne=books").admits(&text("books")));
    assert!(one("name_like=a&name_like=b").admits(&text("B")));
}

#[test]
fn like_looks_inside_text_and_numbers_whatever_the_case() {
    assert!(one("name_like=DES").admits(&text("Modern Desk")));
    assert!(one("name_like=z%C3%BC").admits(&text("ZÜRICH")));
    assert!(one("price_like=9.9").admits(&Cell::Number(19.9)));
    assert!(!one("name_like=").admits(&Cell::Missing));
}

#[test]
fn what_is_missing_or_of_another_kind_equals_nothing() {
    for cell in [Cell::Missing, text("cheap")] {
        for raw in ["price=0", "price_gte=0", "price_lte=0"] {
            assert!(!one(raw).admits(&cell), "{raw} {cell:?}");
        }
        assert!(one("price_ne=0").admits(&cell));
    }
    assert!(!one("name=").admits(&Cell::Missing));
}

#[test]
fn fields_with_underscores_are_not_taken_for_comparisons() {
    let query = Query::new(Collection::Orders, "customer_id=7&customer_id_ne=8&placed_at_gte=2024").unwrap();
    let seen: Vec<_> = query.filters.iter().map(|filter| (filter.field, filter.test)).collect();
    assert_eq!(seen, [(1, Test::Equal), (1, Test::Differs), (6, Test::AtLeast)]);
}

#[test]
fn sorting_reads_the_minus_and_the_order_alike() {
    let minus = Query::new(HERE, "_sort=category,-price").unwrap().sort;
    let order = Query::new(HERE, "_sort=category,price&_order=asc,desc").unwrap().sort;
    assert_eq!(minus, order);
    assert_eq!(Query::new(HERE, "_order=desc").unwrap().sort, [(0, Direction::Down)]);
    assert!(Query::new(HERE, "_sort=").unwrap().sort.is_empty());
}

#[test]
fn empty_pieces_of_a_query_mean_nothing() {
    let query = Query::new(HERE, "&&_limit=3&").unwrap();
    assert_eq!((query.page.limit, query.filters.len()), (3, 0));
}

#[test]
fn links_keep_what_was_asked_and_encode_it_again() {
    let query = Query::new(HERE, "name=a%26b+c&_limit=2&_page=2").unwrap();
    assert_eq!(
        query.links("/products", 5),
        "</products?name=a%26b%20c&_limit=2&_page=1>; rel=\"first\", </products?name=a%26b%20c&_limit=2&_page=1>; rel=\"prev\", \
         </products?name=a%26b%20c&_limit=2&_page=3>; rel=\"next\", </products?name=a%26b%20c&_limit=2&_page=3>; rel=\"last\""
    );
}

#[test]
fn a_value_cannot_break_out_of_a_link() {
    let links = Query::new(HERE, "name=%3E%3B%20rel%3D%22next%22%0D%0A").unwrap().links("/products", 0);
    assert!(!links.contains(['\r', '\n']) && links.matches('>').count() == 2, "{links}");
}

#[test]
fn the_last_page_is_full_or_not_but_never_empty() {
    let last =
        |total| Query::new(HERE, "").unwrap().links("/p", total).rsplit("_page=").next().unwrap().split('>').next().unwrap().to_owned();
    assert_eq!([0, 1, 10, 11, 20, 21].map(last), ["1", "1", "1", "2", "2", "3"]);
}

#[test]
fn an_error_repeats_only_so_much_of_what_was_sent() {
    let problem = Query::new(HERE, &"é".repeat(5000)).unwrap_err();
    assert!(format!("{problem:?}").len() < 600);
}

#[test]
fn escapes_must_be_whole_and_utf8() {
    assert_eq!(decode("a%C3%A9%25").unwrap(), "aé%");
    for bad in ["%", "%1", "a%é0", "%C3", "%+1"] {
        assert!(decode(bad).is_err(), "{bad}");
    }
}
