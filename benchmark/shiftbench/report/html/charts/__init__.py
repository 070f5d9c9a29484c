"""The page's charts: Altair charts over named data, so that several may share them."""
