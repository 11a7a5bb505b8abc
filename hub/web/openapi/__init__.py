"""The API described for programs: the OpenAPI document at `/openapi.json`, and a page that shows it at `/docs/api`.

operations   what each method of each path takes and answers: a new route is described there, and nowhere else
schemas      the JSON of bodies, answers, problems and events
document     the document of what one application has mounted
page         the page, with the assets of Swagger UI
"""
