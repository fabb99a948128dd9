"""Looking into a cache: lists, pictures, neighbours, a map. `views.CacheViews` is the door, and
`routes.cache_router` the same over HTTP; `thumbnails` is for pages of other rooms too."""
